module stackbook.dev/follow

go 1.26.0
