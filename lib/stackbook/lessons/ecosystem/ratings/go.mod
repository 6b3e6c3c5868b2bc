module stackbook.dev/ratings

go 1.26.0
