"""A stand-in for Amazon Bedrock's control plane: which models there are, and until when."""
