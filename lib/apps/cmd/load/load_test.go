package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const ids = "0123456789abcdef01"

// run carries out a plan and returns its report.
func run(t *testing.T, ctx context.Context, plan map[string]any) ([]Line, Summary) {
	t.Helper()
	plan["ids"] = ids
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	checked, err := ReadPlan(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	var answered atomic.Int64
	if err := Run(ctx, checked, &out, &answered); err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(out.String()), "\n")
	var lines []Line
	if int(answered.Load()) != len(rows)-1 {
		t.Fatalf("%d counted, %d reported", answered.Load(), len(rows)-1)
	}
	for _, row := range rows[:len(rows)-1] {
		var line Line
		if err := json.Unmarshal([]byte(row), &line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	var end struct{ Summary *Summary }
	if err := json.Unmarshal([]byte(rows[len(rows)-1]), &end); err != nil || end.Summary == nil {
		t.Fatalf("last line is no summary: %v: %s", err, rows[len(rows)-1])
	}
	return lines, *end.Summary
}

func TestGroupsTakeTurnsAndEachRequestHasItsOwnID(t *testing.T) {
	var lock sync.Mutex
	seen := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lock.Lock()
		seen[r.Header.Get("X-Request-Id")]++
		lock.Unlock()
		w.Header().Add("X-Served-By", "productpage/v1 p-1")
		w.Header().Add("X-Served-By", "reviews/v3 r-3")
		if r.Header.Get("End-User") == "jason" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprintf(w, `{"podname": "r-3", "host": %q, "vegeta": %q}`, r.Host, r.Header.Get("X-Vegeta-Seq"))
	}))
	defer server.Close()
	lines, summary := run(t, context.Background(), map[string]any{
		"count": 101, "warmup": 20, "concurrency": 4,
		"groups": []map[string]any{
			{"name": "jason", "url": server.URL, "headers": map[string]string{"end-user": "jason"}},
			{"name": "control", "url": server.URL, "headers": map[string]string{"host": "bookinfo.example"}},
		},
	})
	if summary.Sent != 101 || len(lines) != 101 || summary.Stopped {
		t.Fatalf("sent %d, reported %d, stopped %t", summary.Sent, len(lines), summary.Stopped)
	}
	counts := map[string]int{}
	for _, line := range lines {
		counts[fmt.Sprint(line.Group, line.Status)]++
		if seen[line.ID] != 1 || line.Pod != "r-3" || len(line.Served) != 2 {
			t.Fatalf("line %+v, its id seen %d times", line, seen[line.ID])
		}
	}
	if counts["jason500"] != 51 || counts["control200"] != 50 || len(counts) != 2 {
		t.Fatal(counts)
	}
	if len(seen) != 121 {
		t.Fatalf("%d ids for 121 requests with the warm-up", len(seen))
	}
}

func TestPaceAndConcurrencyAreKept(t *testing.T) {
	var now, most atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(20 * time.Millisecond)
	}))
	defer server.Close()
	target := []map[string]any{{"name": "all", "url": server.URL}}
	_, paced := run(t, context.Background(), map[string]any{"groups": target, "count": 50, "rate": 100, "concurrency": 16})
	if paced.Seconds < 0.48 {
		t.Errorf("50 requests at 100 per second took %g s", paced.Seconds)
	}
	most.Store(0)
	_, fast := run(t, context.Background(), map[string]any{"groups": target, "count": 60, "concurrency": 3})
	if most.Load() > 3 {
		t.Errorf("%d requests at once", most.Load())
	}
	if fast.Seconds > 5 {
		t.Errorf("took %g s", fast.Seconds)
	}
	timed, _ := run(t, context.Background(), map[string]any{"groups": target, "count": 200000, "seconds": 0.3, "concurrency": 2})
	if len(timed) == 0 || len(timed) > 60 {
		t.Errorf("%d requests in 0.3 s of 20 ms each by two workers", len(timed))
	}
}

func TestFailuresAreNamed(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + closed.Addr().String()
	closed.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			time.Sleep(300 * time.Millisecond)
		case "/cut":
			connection, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				connection.Close()
			}
		case "/half":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "not all")
		case "/moved":
			http.Redirect(w, r, "/slow", http.StatusFound)
		}
	}))
	defer server.Close()
	for url, want := range map[string]string{
		refused:                    "refused 0",
		server.URL + "/slow":       "timeout 0",
		server.URL + "/cut":        "reset 0",
		server.URL + "/half":       "reset 0",
		server.URL + "/moved":      " 302",
		"http://stackbook.invalid": "client: name not found 0",
	} {
		lines, _ := run(t, context.Background(), map[string]any{
			"count": 1, "timeout": 0.15, "groups": []map[string]any{{"name": "one", "url": url}},
		})
		if got := fmt.Sprintf("%s %d", lines[0].Error, lines[0].Status); got != want {
			if !(strings.HasSuffix(url, ".invalid") && got == "timeout 0") { // a resolver that does not answer
				t.Errorf("%s: %q, want %q", url, got, want)
			}
		}
	}
}

func TestASignalEndsItWithAWholeReport(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(5 * time.Millisecond) }))
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	lines, summary := run(t, ctx, map[string]any{
		"count": 100000, "groups": []map[string]any{{"name": "all", "url": server.URL}},
	})
	if !summary.Stopped || summary.Sent != len(lines) || summary.Seconds > 5 {
		t.Fatalf("%+v with %d lines", summary, len(lines))
	}
}

func TestAPlanOutOfBoundsIsRefused(t *testing.T) {
	good := `"ids": "` + ids + `", "groups": [{"name": "a", "url": "http://127.0.0.1:1/"}]`
	for _, text := range []string{
		``, `[]`, `{}`, `{"surprise": 1, ` + good + `, "count": 1}`,
		`{` + good + `, "count": 0}`, `{` + good + `, "count": 200001}`, `{` + good + `, "count": 1, "rate": -1}`,
		`{` + good + `, "count": 1, "rate": 1e6}`, `{` + good + `, "count": 1, "seconds": 0}`,
		`{` + good + `, "count": 1, "seconds": 3600}`, `{` + good + `, "count": 1, "concurrency": 1000}`,
		`{` + good + `, "count": 1, "timeout": 90}`, `{"ids": "x", "count": 1, "groups": [{"url": "http://a/"}]}`,
		`{"ids": "` + ids + `", "count": 1, "groups": [{"url": "file:///etc/passwd"}]}`,
		`{"ids": "` + ids + `", "count": 1, "groups": [{"url": "http://a/", "method": "GET IT"}]}`,
	} {
		if _, err := ReadPlan(strings.NewReader(text)); err == nil {
			t.Errorf("accepted: %s", text)
		}
	}
}

// TestMain lets the test binary stand in for the command, as `run NAME`.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "run" {
		main()
	}
	os.Exit(m.Run())
}

func TestStopEndsTheRunOfThatNameOnly(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(5 * time.Millisecond) }))
	defer server.Close()
	plan := fmt.Sprintf(`{"ids": %q, "count": 200000, "seconds": 20, "rate": 50, "groups": [{"name": "a", "url": %q}]}`, ids, server.URL)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	command := exec.Command(program, "run", "mine")
	command.Stdin, command.Stdout = strings.NewReader(plan), &out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	time.Sleep(300 * time.Millisecond) // it must be under way: its signal handler stands before the plan is read
	count := func(name string) int64 {
		found, err := ask(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	before := count("mine")
	time.Sleep(200 * time.Millisecond)
	if now := count("mine"); before < 1 || now <= before || now > 100 {
		t.Fatalf("%d answered, then %d", before, now)
	}
	if got := count("another"); got != 0 {
		t.Fatalf("another has %d", got)
	}
	if err := stopRun("/proc", "another"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Fatalf("ended by another's stop: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if err := stopRun("/proc", "mine"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil || !strings.Contains(out.String(), `"stopped":true`) {
			t.Fatalf("%v: %s", err, out.String())
		}
	case <-time.After(10 * time.Second):
		_ = command.Process.Kill()
		t.Fatal("not stopped")
	}
	if got := count("mine"); got != 0 {
		t.Fatalf("%d after its end", got)
	}
}

func TestOtherWordsAreRefused(t *testing.T) {
	for _, args := range [][]string{{}, {"walk"}, {"stop"}, {"answered"}, {"idle", "now"}, {"run", "a", "b"}} {
		if err := start(context.Background(), args, strings.NewReader(""), io.Discard); status(err) != 2 {
			t.Errorf("%v: %v", args, err)
		}
	}
	if err := stopRun("/proc", "nobody"); err != nil {
		t.Error(err)
	}
}

// The Python side's tests read and write the same two files.
func TestPlanAndReportAreThoseOfThePythonSide(t *testing.T) {
	file, err := os.Open("testdata/plan.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	plan, err := ReadPlan(file)
	if err != nil || len(plan.Groups) != 2 || plan.Groups[0].Headers["end-user"] != "jason" || plan.Rate != 500 {
		t.Fatalf("%+v: %v", plan, err)
	}
	report, err := os.ReadFile("testdata/report.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	rows := bytes.Split(bytes.TrimSpace(report), []byte("\n"))
	same := func(row []byte, value any) {
		decoder := json.NewDecoder(bytes.NewReader(row))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(value); err != nil {
			t.Errorf("%s: %v", row, err)
		}
		again, _ := json.Marshal(value)
		if !bytes.Equal(again, row) {
			t.Errorf("this program would write %s, the file has %s", again, row)
		}
	}
	for _, row := range rows[:len(rows)-1] {
		same(row, &Line{})
	}
	same(rows[len(rows)-1], &struct {
		Summary Summary `json:"summary"`
	}{})
}
