// A worker in Go, with nothing but the standard library: the agent `word-count` counts the words of its task.
//
//	export RUNCAST_URL=http://localhost:8080 RUNCAST_TOKEN=…        # a token with the scope jobs:run, as that of `runcast dev`
//	go run .                                                        # in this folder
//	runcast run word-count "how many words are these" --follow
//
// It is four workers, each with one job at a time. On SIGTERM their jobs go to other workers. docs/agents/over-http.md has the
// protocol.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

type object = map[string]any

type job struct {
	ExecutionID, Task, Fence, worker string
	Attempt, published               int
	Params                           struct{ PauseSeconds float64 }
}

var lost, cancelled, stopping = errors.New("lost"), errors.New("cancelled"), errors.New("stopping")

// post sends JSON and reads the answer into `to`. It tries again while nobody answers, or the edge is busy.
func post(ctx context.Context, path string, header http.Header, body, to any) (status int) {
	data, _ := json.Marshal(body)
	for ctx.Err() == nil {
		request, _ := http.NewRequestWithContext(ctx, "POST", os.Getenv("RUNCAST_URL")+path, bytes.NewReader(data))
		request.Header = header.Clone()
		request.Header.Set("Authorization", "Bearer "+os.Getenv("RUNCAST_TOKEN"))
		request.Header.Set("Content-Type", "application/json")
		if response, err := http.DefaultClient.Do(request); err == nil {
			err = json.NewDecoder(response.Body).Decode(to)
			response.Body.Close()
			if status = response.StatusCode; status == 204 || err == nil && status < 500 && status != 429 {
				return status
			}
		}
		time.Sleep(time.Second)
	}
	return 0
}

// jobs asks for a step (claim, renew, release) of this worker.
func jobs(ctx context.Context, step, worker string, body object, to any) int {
	body["worker"] = worker
	return post(ctx, "/api/agent/jobs/"+step, http.Header{}, body, to)
}

func (j *job) ref() object {
	return object{"executionId": j.ExecutionID, "attempt": j.Attempt, "fence": j.Fence}
}

// emit publishes an event under the job's attempt. If it is sent again, the number keeps it from being appended twice.
func (j *job) emit(kind string, data object) error {
	j.published++
	var answer struct{ Detail string }
	header := http.Header{"Fence": {j.Fence}, "Attempt": {fmt.Sprint(j.Attempt)},
		"Producer-Id": {j.worker}, "Producer-Seq": {fmt.Sprint(j.published)}}
	path := "/api/agent/executions/" + j.ExecutionID + "/events"
	if status := post(context.Background(), path, header, object{"type": kind, "data": data}, &answer); status != 202 {
		return fmt.Errorf("%s: %d %s", kind, status, answer.Detail)
	}
	return nil
}

// renew keeps the lease until `ctx` ends, and stops the job if it was cancelled, or is another worker's.
func (j *job) renew(ctx context.Context, stop context.CancelCauseFunc) {
	for ctx.Err() == nil {
		var answer struct{ Jobs []struct{ State string } }
		jobs(ctx, "renew", j.worker, object{"jobs": []object{j.ref()}, "waitSeconds": 30}, &answer)
		if len(answer.Jobs) == 1 && answer.Jobs[0].State != "held" {
			stop(map[string]error{"cancel": cancelled, "lost": lost}[answer.Jobs[0].State])
			time.Sleep(time.Second) // a cancelled job needs its lease until its end is in the log
		}
	}
}

// run sees an attempt through to its end.
func (j *job) run(parent context.Context) {
	ctx, stop := context.WithCancelCause(parent)
	alive, ended := context.WithCancel(context.Background())
	defer ended()
	go j.renew(alive, stop)
	began := time.Now()
	j.emit("execution:started", object{"task": j.Task, "startedAt": began.UnixMilli(), "attempt": j.Attempt})
	result, err := wordCount(ctx, j)
	ref := j.ref()
	switch cause := context.Cause(ctx); {
	case cause == cancelled:
		err = j.emit("execution:cancelled", object{})
	case cause == stopping || cause == nil && err != nil:
		if cause == nil { // to be tried again, if attempts are left
			ref["failure"] = object{"error": err.Error()}
		}
		jobs(context.Background(), "release", j.worker, object{"jobs": []object{ref}}, &object{})
	case cause == nil:
		err = j.emit("execution:complete", object{"result": result, "duration": time.Since(began).Seconds()})
	}
	log.Println("ended", j.ExecutionID, "attempt", j.Attempt, err)
}

// wordCount is the agent.
func wordCount(ctx context.Context, j *job) (object, error) {
	words := strings.Fields(j.Task)
	for i, word := range words {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Duration(j.Params.PauseSeconds * float64(time.Second))):
		}
		if err := j.emit("progress", object{"progress": 100 * (i + 1) / len(words), "currentAction": word}); err != nil {
			return nil, err
		}
	}
	return object{"words": len(words)}, nil
}

// work claims one job after the other. `running` says that it has none, so a job whose claim got no answer comes again.
func work(ctx context.Context, worker string) {
	agent := object{"name": "word-count", "description": "Counts the words of its task", "maxAttempts": 3}
	for ctx.Err() == nil {
		var answer struct{ Jobs []*job }
		body := object{"agents": []object{agent}, "running": []object{}}
		if status := jobs(ctx, "claim", worker, body, &answer); status >= 400 {
			log.Fatalln("refused:", status)
		}
		for _, found := range answer.Jobs {
			found.worker = worker
			found.run(ctx)
		}
	}
}

func main() {
	ctx, stop := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() { <-signals; stop(stopping) }()
	var all sync.WaitGroup
	for slot := range [4]int{} {
		all.Add(1)
		go func(slot int) {
			defer all.Done()
			work(ctx, fmt.Sprintf("go-%d-%x-%d", os.Getpid(), time.Now().UnixNano(), slot))
		}(slot)
	}
	all.Wait()
}
