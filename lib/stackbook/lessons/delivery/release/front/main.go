// Command front tells the price of an item: a service that is small enough to be released while one watches.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const version = "1"

var prices = []int{120, 80, 250, 40, 95}

// price returns the price of an item in cents. Items count from 0.
func price(item int) int {
	return prices[item]
}

func items(w http.ResponseWriter, r *http.Request) {
	item, err := strconv.Atoi(r.PathValue("item"))
	if err != nil || item < 0 || item >= len(prices) {
		http.Error(w, "no such item", http.StatusNotFound)
		return
	}
	answer := map[string]any{"item": item, "cents": price(item), "version": version}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// named adds who answers, and turns a panic into status 500: without it, the connection would be closed.
func named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Version", version)
		w.Header().Set("X-Track", os.Getenv("TRACK"))
		defer func() {
			if broken := recover(); broken != nil {
				log.Printf("%s: %v", r.URL.Path, broken)
				http.Error(w, "internal error", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /items/{item}", items)
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Addr: ":8080", Handler: named(mux), ReadHeaderTimeout: 5 * time.Second}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	go func() {
		<-stop.Done()
		_ = server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}
