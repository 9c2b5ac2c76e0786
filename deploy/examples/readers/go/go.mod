module runcast.example/reader

go 1.21
