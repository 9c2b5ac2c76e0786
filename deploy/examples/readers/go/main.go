// Print an execution's events, over as many connections as it takes. Nothing but the standard library:
//
//	go run . 'http://localhost:8080/api/agent/executions/ID/stream?heartbeat=3' TOKEN
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

var (
	cursor string
	retry  = 2 * time.Second
	last   = map[string]bool{"execution:complete": true, "execution:error": true, "execution:cancelled": true}
)

// read is one connection, from the cursor on: whether the stream is over.
func read(url, token string) bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	silence := time.AfterFunc(10*time.Second, cancel)
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		log.Fatal(err)
	}
	request.Header = http.Header{"Authorization": {"Bearer " + token}, "Accept": {"text/event-stream"}, "Last-Event-Id": {cursor}}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	if code := response.StatusCode; code == 204 {
		return true
	} else if code >= 400 && code < 500 && code != 429 {
		log.Fatal(response.Status)
	}
	field := map[string]string{}
	for lines := bufio.NewReader(response.Body); ; { // not a Scanner: it has a limit of 64 KiB a line
		line, err := lines.ReadString('\n')
		if err != nil {
			return false // lost, or silent for ten seconds, or over for now: it goes on where it was
		}
		silence.Reset(10 * time.Second)
		if name, value, isField := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); isField {
			field[name] = value
			continue
		}
		event, data := field["event"], field["data"]
		if id := field["id"]; id != "" {
			cursor = id
		}
		if ms, err := strconv.Atoi(field["retry"]); err == nil {
			retry = time.Duration(ms) * time.Millisecond
		}
		if data != "" && !strings.HasPrefix(event, "stream:") {
			fmt.Println(cursor, data)
		}
		if last[event] || event == "stream:end" && strings.Contains(data, `"reason":"finished"`) {
			return true
		}
		clear(field)
	}
}

func main() {
	for !read(os.Args[1], os.Args[2]) {
		time.Sleep(retry)
	}
}
