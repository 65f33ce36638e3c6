"""What watching costs, beside what people use today: ``python -m benchmarks.overhead``."""
