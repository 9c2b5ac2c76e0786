#!/usr/bin/env bash
# Go's gzip reader keeps a whole stored block to itself until the header of the next block arrives.
#
# Seen with Go 1.26.8 (compress/gzip) beside zlib 1.2.13 in Python 3.11. A stream sends a gzip header and one stored block
# with a line of text, and then nothing for a while. zlib gives the line at once. Go's reader gives nothing, however long
# it waits, until five more bytes come: an empty stored block, as a sync flush would have sent behind compressed data. So
# a server that writes stored blocks by hand into a stream that goes on is late by one block for Go's clients, also
# through net/http, which decodes gzip by itself. A good guess would have been that a block that is complete is given
# out, since a stored block needs nothing more to be decoded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/main.go" <<'GO'
package main

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"time"
)

var header = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}

func stored(text string) []byte {
	size := len(text)
	return append([]byte{0, byte(size), byte(size >> 8), byte(^size), byte(^size >> 8)}, text...)
}

func arrives(what string, behind []byte) bool {
	reader, writer := io.Pipe()
	go func() {
		writer.Write(header)
		writer.Write(append(stored("data: 1\n"), behind...))
	}()
	line := make(chan string, 1)
	go func() {
		plain, err := gzip.NewReader(reader)
		if err != nil {
			panic(err)
		}
		text, _ := bufio.NewReader(plain).ReadString('\n')
		line <- text
	}()
	select {
	case text := <-line:
		fmt.Printf("%s: %q\n", what, text)
		return true
	case <-time.After(2 * time.Second):
		fmt.Printf("%s: nothing within 2 s\n", what)
		return false
	}
}

func main() {
	alone := arrives("a stored block", nil)
	followed := arrives("with an empty stored block behind it", []byte{0, 0, 0, 0xff, 0xff})
	if alone || !followed {
		os.Exit(1)
	}
}
GO
go run "$folder/main.go"
python3 - <<'PY'
import zlib

block = bytes([0, 8, 0, 255 - 8, 255]) + b"data: 1\n"
given = zlib.decompressobj(31).decompress(b"\x1f\x8b\x08" + bytes(6) + b"\xff" + block)
print("zlib:", given)
assert given == b"data: 1\n"
PY
echo "as described"
