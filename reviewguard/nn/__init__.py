"""The torch core: encoder, heads, and the model they make up."""
