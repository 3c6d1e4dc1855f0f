"""An OpenAI-compatible streaming server with continuous batching on a timing model: `vllm serve`."""
