module stackbook.dev/apps

go 1.26.0
