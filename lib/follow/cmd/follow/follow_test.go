package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// server is an API server with one pod. Its log is `lines`; each answer ends after what is there, as when a container ends.
type server struct {
	*httptest.Server
	lock   sync.Mutex
	lines  []string
	gone   bool
	denied bool
	broken int // after so many bytes the connection breaks; 0: never
	since  []string
}

func begin(t *testing.T) *server {
	t.Helper()
	s := &server{}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/namespaces/ada/pods", func(w http.ResponseWriter, r *http.Request) {
		s.lock.Lock()
		defer s.lock.Unlock()
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if s.gone {
			fmt.Fprint(w, `{"items": []}`)
			return
		}
		fmt.Fprint(w, `{"items": [{"metadata": {"name": "page", "namespace": "ada", "uid": "7"}, "status": {"containerStatuses": [
			{"name": "app", "state": {"waiting": {}}, "lastState": {"terminated": {}}}, {"name": "later", "state": {"waiting": {}}}]}}]}`)
	})
	mux.HandleFunc("/api/v1/namespaces/ada/pods/page/log", func(w http.ResponseWriter, r *http.Request) {
		s.lock.Lock()
		defer s.lock.Unlock()
		if s.denied {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"message": "pods \"page\" is forbidden"}`)
			return
		}
		query := r.URL.Query()
		if query.Get("container") != "app" || query.Get("follow") != "true" || query.Get("timestamps") != "true" {
			t.Errorf("%v", query)
		}
		s.since = append(s.since, query.Get("sinceTime"))
		from, _ := time.Parse(time.RFC3339Nano, query.Get("sinceTime"))
		text := ""
		for _, line := range s.lines {
			if at, _ := written(line); !at.Before(from.Truncate(time.Second)) { // as the kubelet does
				text += line
			}
		}
		if s.broken > 0 && len(text) > s.broken {
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
			text, s.broken = text[:s.broken], 0
		}
		fmt.Fprint(w, text)
	})
	s.Server = httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *server) say(lines ...string) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.lines = append(s.lines, lines...)
}

func (s *server) set(change func()) {
	s.lock.Lock()
	defer s.lock.Unlock()
	change()
}

// follows runs a follower until the test ends, or until what it returns is called; the log that it writes is in `folder`.
func follows(t *testing.T, s *server, folder string, limit int64, said *strings.Builder) context.CancelFunc {
	t.Helper()
	place := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, data := range map[string][]byte{"ca.crt": ca, "token": []byte("secret\n")} {
		if err := os.WriteFile(filepath.Join(place, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	client, err := newClient(s.URL, filepath.Join(place, "ca.crt"), filepath.Join(place, "token"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		f := follower{client: client, folder: folder, limit: limit, every: 5 * time.Millisecond, keep: time.Millisecond, say: said}
		f.run(ctx, []string{"ada"})
	})
	stop := func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

func path(folder string) string { return filepath.Join(folder, "ada_page_7", "app", current) }

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 1000 {
		if holds() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("not in time: ", what)
}

func has(t *testing.T, folder, want string) {
	t.Helper()
	var got []byte
	for range 1000 {
		if got, _ = os.ReadFile(path(folder)); string(got) == want {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if string(got) != want {
		t.Fatalf("%q, not %q", got, want)
	}
}

const (
	one   = "2026-12-01T10:00:00.100000000Z one\n"
	two   = "2026-12-01T10:00:00.200000000Z two and  more\n"
	early = "2026-12-01T10:00:00.199999000Z of the other stream\n"
	three = "2026-12-01T10:00:09.000000000Z \n"
)

func form(lines ...string) string {
	text := ""
	for _, line := range lines {
		text += strings.Replace(line, " ", " stdout F ", 1)
	}
	return text
}

func TestEachLineIsWrittenOnceInTheFormOfTheRuntime(t *testing.T) {
	s, folder := begin(t), t.TempDir()
	s.say(one, two)
	follows(t, s, folder, 1<<20, &strings.Builder{})
	has(t, folder, form(one, two))
	s.say(early, three)
	has(t, folder, form(one, two, early, three))
	asked := 0
	s.set(func() { asked = len(s.since) })
	until(t, "more answers", func() bool { s.lock.Lock(); defer s.lock.Unlock(); return len(s.since) > asked+3 })
	has(t, folder, form(one, two, early, three))
	if _, err := os.Stat(filepath.Join(folder, "ada_page_7", "later")); err == nil {
		t.Error("a container that has not begun has a log")
	}
}

func TestAConnectionThatBreaksLosesNothing(t *testing.T) {
	s, folder := begin(t), t.TempDir()
	s.broken = len(one) + 40
	s.say(one, two, three)
	follows(t, s, folder, 1<<20, &strings.Builder{})
	has(t, folder, form(one, two, three))
}

func TestAnotherProcessGoesOnWithTheFile(t *testing.T) {
	for _, cut := range []int{0, 10, len(form(two)) - 1} {
		s, folder := begin(t), t.TempDir()
		s.say(one, two)
		stop := follows(t, s, folder, 1<<20, &strings.Builder{})
		has(t, folder, form(one, two))
		stop()
		if err := os.Truncate(path(folder), int64(len(form(one, two))-cut)); err != nil {
			t.Fatal(err)
		}
		s.say(three)
		follows(t, s, folder, 1<<20, &strings.Builder{})
		has(t, folder, form(one, two, three))
	}
}

func TestANewContainersLogHasNothingOfTheOld(t *testing.T) {
	s, folder := begin(t), t.TempDir()
	s.say(one, two)
	follows(t, s, folder, 1<<20, &strings.Builder{})
	has(t, folder, form(one, two))
	s.set(func() { s.lines = []string{three} })
	has(t, folder, form(one, two, three))
}

func TestFilesAreRotatedAndTheOldestRemoved(t *testing.T) {
	s, folder := begin(t), t.TempDir()
	follows(t, s, folder, int64(len(form(one))), &strings.Builder{})
	last := ""
	for number := range 9 {
		last = fmt.Sprintf("2026-12-01T10:00:0%d.000000000Z line\n", number)
		s.say(last)
	}
	has(t, folder, form(last))
	old, _ := filepath.Glob(path(folder) + ".*[0-9]")
	if len(old) != rotated {
		t.Errorf("%v", old)
	}
}

func TestTheFilesOfAPodThatIsGoneAreRemoved(t *testing.T) {
	s, folder := begin(t), t.TempDir()
	s.say(one)
	follows(t, s, folder, 1<<20, &strings.Builder{})
	has(t, folder, form(one))
	s.set(func() { s.gone = true })
	until(t, "no folder", func() bool { _, err := os.Stat(filepath.Join(folder, "ada_page_7")); return os.IsNotExist(err) })
}

func TestWhatTheAPIServerRefusesIsSaid(t *testing.T) {
	s, said := begin(t), &strings.Builder{}
	s.denied = true
	stop := follows(t, s, t.TempDir(), 1<<20, said)
	time.Sleep(200 * time.Millisecond)
	stop()
	want := `follow: the log of ada/page/app cannot be read: the API server answers 403 Forbidden: pods "page" is forbidden`
	if !strings.HasPrefix(said.String(), want) {
		t.Errorf("%q", said.String())
	}
}

func TestAnotherServersCertificateIsNotTrusted(t *testing.T) {
	s := begin(t)
	place := t.TempDir()
	token := filepath.Join(place, "token")
	_ = os.WriteFile(token, []byte("secret"), 0o600)
	if _, err := newClient(s.URL, token, token); err == nil {
		t.Error("a file without a certificate is a CA")
	}
	c := &client{server: s.URL, token: token, http: &http.Client{Transport: &http.Transport{}}}
	if _, err := c.containers(t.Context(), "ada"); err == nil || !strings.Contains(err.Error(), x509.UnknownAuthorityError{}.Error()[:20]) {
		t.Errorf("%v", err)
	}
}
