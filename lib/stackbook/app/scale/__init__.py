"""How a lab grows with its machines and pods on one host: `make bench-scale` measures it and writes docs/scale.md."""
