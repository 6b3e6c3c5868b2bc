// Command bookinfo is Istio's bookinfo sample rewritten as one small program.
//
// The four services keep the sample's paths, JSON, labels and environment variables
// (https://github.com/istio/istio/tree/master/samples/bookinfo/src), so that the guide's
// manifests fit both. One image serves all: the argument or SERVICE picks the service.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"

	"stackbook.dev/apps/internal/forward"
	"stackbook.dev/apps/internal/service"
)

// app is what the four services have in common.
type app struct {
	id      service.Identity
	client  *http.Client
	forward bool // hand trace headers on
}

var services = map[string]func(app) http.Handler{
	"productpage": productpage,
	"details":     details,
	"reviews":     reviews,
	"ratings":     ratings,
}

func main() {
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: bookinfo [-port 9080] productpage|details|reviews|ratings\n")
		flag.PrintDefaults()
	}
	port := flag.String("port", service.Env("SERVICE_PORT", "9080"), "port to listen on (SERVICE_PORT)")
	flag.Parse()
	name := flag.Arg(0)
	if name == "" {
		name = os.Getenv("SERVICE")
	}
	build, known := services[name]
	if !known || flag.NArg() > 1 {
		flag.Usage()
		os.Exit(2)
	}
	self := newApp(name)
	server := service.Server{Identity: self.id, Handler: build(self), Drain: service.DrainPeriod()}
	if err := server.Run(":" + *port); err != nil {
		fmt.Fprintln(os.Stderr, "bookinfo:", err)
		os.Exit(1)
	}
}

func newApp(name string) app {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64 // the default of 2 makes a new connection for most calls under load
	return app{id: service.Whoami(name), client: &http.Client{Transport: transport}, forward: forward.Enabled()}
}

// upstream is the base URL of another service, from the sample's variables:
// RATINGS_HOSTNAME, RATINGS_SERVICE_PORT and SERVICES_DOMAIN.
func upstream(prefix, host string) string {
	host = service.Env(prefix+"_HOSTNAME", host)
	if domain := os.Getenv("SERVICES_DOMAIN"); domain != "" {
		host += "." + domain
	}
	return "http://" + host + ":" + service.Env(prefix+"_SERVICE_PORT", "9080")
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the client has gone: nobody is left to tell
}

func failure(text string) map[string]string { return map[string]string{"error": text} }

func health(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": text})
	}
}
