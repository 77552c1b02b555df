"""What `optimize` does to a model of transformers: reads it, packs its weights, and runs it on the operators."""
