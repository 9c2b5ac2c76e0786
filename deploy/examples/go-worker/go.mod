module runcast.example/worker

go 1.21
