"""The zoo sweep's parts: which models (`subjects`), how they are varied (`vary`), what is asked of each (`judge`),
who runs it (`workers`), and how it is told (`table`)."""
