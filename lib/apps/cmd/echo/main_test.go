package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"stackbook.dev/apps/internal/service"
)

func call(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("X-Colour", "green")
	handler(service.Identity{App: "myapp", Version: "v1", Pod: "myapp-7"}).ServeHTTP(w, r)
	return w
}

func TestAnswersAsTheGuidesImage(t *testing.T) {
	for path, want := range map[string]string{
		"/":               "Hello MyApp | Version: v1 | <a href=\"hostname.html\">Pod Name</a>\n",
		"/hostname.html":  "myapp-7\n",
		"/healthz":        "ok\n",
		"/status/418":     "I'm a teapot\n",
		"/slow?seconds=0": "waited 0s\n",
	} {
		if got := call(path).Body.String(); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
}

func TestStatusAndBounds(t *testing.T) {
	for path, want := range map[string]int{
		"/status/503": 503, "/status/204": 204, "/status/99": 400, "/status/x": 400, "/nowhere": 404,
		"/bytes?n=0": 200, "/bytes?n=-1": 400, "/bytes?n=67108865": 400,
		"/slow?seconds=61": 400, "/slow?seconds=-1": 400, "/slow?seconds=NaN": 400, "/slow": 400,
	} {
		if got := call(path).Code; got != want {
			t.Errorf("%s: %d", path, got)
		}
	}
	if got := call("/bytes?n=100000").Body.Len(); got != 100000 {
		t.Errorf("%d bytes", got)
	}
}

func TestHeaders(t *testing.T) {
	got := http.Header{}
	if err := json.Unmarshal(call("/headers").Body.Bytes(), &got); err != nil || got.Get("X-Colour") != "green" || got.Get("Host") == "" {
		t.Errorf("%v %v", got, err)
	}
}

func TestSlowEndsWithItsClient(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest(http.MethodGet, "/slow?seconds=60", nil).WithContext(ctx)
	started := time.Now()
	slow(httptest.NewRecorder(), r)
	if time.Since(started) > time.Second {
		t.Error("waited for a client that had gone")
	}
}
