"""From logits to the next token: penalties, filters, draws, grammars, log-probabilities."""
