"""It takes memory piece by piece and touches it."""

PIECES = []
while True:
    PIECES.append(bytearray(b"x" * 10**7))
