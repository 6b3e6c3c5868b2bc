package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
)

// The most that one plan may ask for.
const (
	maxCount       = 200_000
	maxConcurrency = 256
	maxRate        = 10_000.0 // requests per second
	maxSeconds     = 600.0
	maxTimeout     = 60.0
	maxGroups      = 32
)

// Group is one kind of request. Groups take turns, so that each is the other's control
// under the same conditions at the same time.
type Group struct {
	Name    string            `json:"name"`
	URL     string            `json:"url"`
	Method  string            `json:"method"` // GET where empty
	Headers map[string]string `json:"headers"`
}

// Plan is what one run sends. It ends after Count requests or Seconds, whichever comes first.
type Plan struct {
	Groups      []Group `json:"groups"`
	Count       int     `json:"count"`
	Seconds     float64 `json:"seconds"`     // how long requests are started
	Rate        float64 `json:"rate"`        // requests started per second; 0: as fast as answers come
	Concurrency int     `json:"concurrency"` // requests under way at once, at most
	Timeout     float64 `json:"timeout"`     // seconds for one request, its body included
	Warmup      int     `json:"warmup"`      // requests sent before and not reported
	IDs         string  `json:"ids"`         // the random 18 hex digits of each x-request-id
	Fresh       bool    `json:"fresh"`       // a new connection for each request
}

type badPlan string

func (e badPlan) Error() string { return string(e) }

var idPrefix = regexp.MustCompile(`^[0-9a-f]{18}$`)

// ReadPlan reads and checks a plan.
func ReadPlan(r io.Reader) (Plan, error) {
	plan := Plan{Concurrency: 8, Timeout: 10, Seconds: maxSeconds}
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&plan); err != nil {
		return plan, badPlan("the plan is not valid JSON of its kind: " + err.Error())
	}
	return plan, plan.check()
}

func (p *Plan) check() error {
	bounds := []struct {
		name             string
		value, low, high float64
	}{
		{"groups", float64(len(p.Groups)), 1, maxGroups},
		{"count", float64(p.Count), 1, maxCount},
		{"seconds", p.Seconds, 0.001, maxSeconds},
		{"rate", p.Rate, 0, maxRate},
		{"concurrency", float64(p.Concurrency), 1, maxConcurrency},
		{"timeout", p.Timeout, 0.001, maxTimeout},
		{"warmup", float64(p.Warmup), 0, maxCount},
	}
	for _, b := range bounds {
		if !(b.value >= b.low && b.value <= b.high) {
			return badPlan(fmt.Sprintf("%s is %g, it must be %g to %g", b.name, b.value, b.low, b.high))
		}
	}
	if !idPrefix.MatchString(p.IDs) {
		return badPlan("ids must be 18 hex digits")
	}
	for i := range p.Groups {
		g := &p.Groups[i]
		if g.Method == "" {
			g.Method = http.MethodGet
		}
		target, err := url.Parse(g.URL)
		if err != nil || (target.Scheme != "http" && target.Scheme != "https") || target.Host == "" {
			return badPlan(fmt.Sprintf("group %q: %q is no http URL", g.Name, g.URL))
		}
		if _, err := http.NewRequest(g.Method, g.URL, nil); err != nil {
			return badPlan(fmt.Sprintf("group %q: %v", g.Name, err))
		}
	}
	return nil
}

// requestID is a UUID whose last 12 digits are the request's number: an answer, a log line and
// a trace of it can be found without a table. The fixed digits say version 4, variant 1; Envoy
// changes the version digit to record its sampling decision.
func (p *Plan) requestID(number uint64) string {
	return fmt.Sprintf("%s-%s-4%s-8%s-%012x", p.IDs[:8], p.IDs[8:12], p.IDs[12:15], p.IDs[15:18], number)
}
