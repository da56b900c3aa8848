"""What operators see: the metrics of every process, declared in one place and served to Prometheus."""
