package service

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

type lockedBuffer struct {
	sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) lines(t *testing.T) []map[string]any {
	t.Helper()
	b.Lock()
	defer b.Unlock()
	var out []map[string]any
	for line := range strings.Lines(b.String()) {
		entry := map[string]any{}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("not JSON: %q", line)
		}
		out = append(out, entry)
	}
	return out
}

func TestDrainServesNewAndRunningRequestsAndThenStops(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/quick", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, "done")
	})
	var log lockedBuffer
	server := Server{Identity: Identity{"demo", "v2", "pod-1"}, Handler: mux, Drain: 150 * time.Millisecond, Log: &log}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + listener.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()

	long := make(chan string, 1)
	go func() { long <- fetch(t, url+"/long", nil) }()
	<-entered
	stop()

	var header http.Header
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got := fetch(t, url+"/quick", &header); got != "ok" {
			t.Fatalf("a new request while draining got %q", got)
		}
		if header.Get("Connection") == "close" {
			break
		}
	}
	if header.Get("Connection") != "close" {
		t.Error("a draining server must tell its clients to leave")
	}
	select {
	case err := <-served:
		t.Fatalf("stopped while a request was running: %v", err)
	case <-time.After(250 * time.Millisecond): // past the drain period
	}
	close(release)
	if got := <-long; got != "done" {
		t.Errorf("the running request was cut off: %q", got)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if response, err := http.Get(url + "/quick"); err == nil {
		_ = response.Body.Close()
		t.Error("still listening after the stop")
	}
}

func TestEachRequestIsOneJSONLine(t *testing.T) {
	var log lockedBuffer
	server := Server{Identity: Identity{"demo", "v2", "pod-1"}, Handler: http.NotFoundHandler(), Log: &log}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	request, _ := http.NewRequest(http.MethodGet, "http://"+listener.Addr().String()+"/there", nil)
	request.Header.Set("x-request-id", "req-7")
	request.Header.Set("end-user", "jason")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if got := response.Header.Get(ServedBy); got != "demo/v2 pod-1" {
		t.Errorf("%s: %q", ServedBy, got)
	}
	stop()
	<-served
	var seen int
	for _, line := range log.lines(t) {
		if line["msg"] != "request" {
			continue
		}
		seen++
		for key, want := range map[string]any{"app": "demo", "version": "v2", "pod": "pod-1", "path": "/there",
			"status": 404.0, "request_id": "req-7", "end_user": "jason"} {
			if line[key] != want {
				t.Errorf("%s = %v, want %v", key, line[key], want)
			}
		}
	}
	if seen != 1 {
		t.Errorf("%d request lines", seen)
	}
}

func TestDrainPeriod(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 5 * time.Second, "0.5": 500 * time.Millisecond, "0": 0, "x": 5 * time.Second, "-1": 5 * time.Second} {
		t.Setenv("DRAIN_SECONDS", value)
		if got := DrainPeriod(); got != want {
			t.Errorf("DRAIN_SECONDS=%q: %v", value, got)
		}
	}
}

func fetch(t *testing.T, url string, header *http.Header) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	if header != nil {
		*header = response.Header.Clone()
		if response.Close { // net/http moves the header into this field
			header.Set("Connection", "close")
		}
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}
