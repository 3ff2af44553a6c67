"""An LSTM language model: embedding, two recurrent layers, a head."""

from torch import nn


class LSTMLanguageModel(nn.Module):
    def __init__(
        self,
        vocab_size: int = 10000,
        embedding_dim: int = 200,
        hidden_size: int = 650,
        num_layers: int = 2,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden_size, num_layers=num_layers, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, vocab_size)

    def forward(self, tokens, state=None):
        x = self.dropout(self.embedding(tokens))
        out, state = self.lstm(x, state)
        return self.head(self.dropout(out)), state
