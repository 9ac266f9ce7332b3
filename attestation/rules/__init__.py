"""What a policy demands of each kind's state, and the judgement of it. Pure."""
