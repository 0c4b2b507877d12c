"""``python -m bench.edge``: what the edge's configuration costs beside a bare relay, and how fast it fails over. See docs/bench.md."""
