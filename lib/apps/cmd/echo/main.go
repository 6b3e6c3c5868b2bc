// Command echo says which pod and which version answered. It stands in for the guide's
// ikubernetes/myapp:v1 and answers / and /hostname.html as that image does.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"stackbook.dev/apps/internal/service"
)

func main() {
	port := flag.String("port", service.Env("PORT", "80"), "port to listen on (PORT)")
	flag.Parse()
	id := service.Whoami("myapp")
	server := service.Server{Identity: id, Handler: handler(id), Drain: service.DrainPeriod()}
	if err := server.Run(":" + *port); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

const (
	maxSlow  = 60 * time.Second
	maxBytes = 64 << 20
)

func handler(id service.Identity) http.Handler {
	mux := http.NewServeMux()
	text := func(line string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, line) }
	}
	mux.HandleFunc("/{$}", text("Hello MyApp | Version: "+id.Version+` | <a href="hostname.html">Pod Name</a>`))
	mux.HandleFunc("/hostname.html", text(id.Pod))
	mux.HandleFunc("/healthz", text("ok"))
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		seen := r.Header.Clone()
		seen.Set("Host", r.Host)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(seen)
	})
	mux.HandleFunc("/slow", slow)
	mux.HandleFunc("/status/{code}", status)
	mux.HandleFunc("/bytes", bytes)
	return mux
}

// slow answers after ?seconds=, unless the client leaves first.
func slow(w http.ResponseWriter, r *http.Request) {
	seconds, err := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
	wait := time.Duration(seconds * float64(time.Second))
	if err != nil || wait < 0 || wait > maxSlow {
		http.Error(w, "seconds must be between 0 and 60", http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(wait):
		fmt.Fprintf(w, "waited %gs\n", seconds)
	case <-r.Context().Done():
	}
}

func status(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.PathValue("code"))
	if err != nil || code < 200 || code > 599 {
		http.Error(w, "the code must be between 200 and 599", http.StatusBadRequest)
		return
	}
	w.WriteHeader(code)
	if code != http.StatusNoContent && code != http.StatusNotModified {
		fmt.Fprintln(w, http.StatusText(code))
	}
}

// bytes answers with ?n= bytes of the letter x.
func bytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil || n < 0 || n > maxBytes {
		http.Error(w, fmt.Sprintf("n must be between 0 and %d", maxBytes), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(n))
	block := make([]byte, 32<<10)
	for i := range block {
		block[i] = 'x'
	}
	for n > 0 {
		written, err := w.Write(block[:min(n, len(block))])
		if err != nil {
			return
		}
		n -= written
	}
}
