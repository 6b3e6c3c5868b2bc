package main

import (
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"

	"stackbook.dev/apps/internal/service"
)

const maxBody = 64 << 10 // bytes looked at; the rest is read and dropped

var podname = regexp.MustCompile(`"podname"\s*:\s*"([^"]{1,253})"`)

// sender makes vegeta's n-th request the one that the plan says.
type sender struct {
	plan  Plan
	first uint64 // number of the first request
	next  http.RoundTripper
}

func (s sender) RoundTrip(r *http.Request) (*http.Response, error) {
	number, err := strconv.ParseUint(r.Header.Get("X-Vegeta-Seq"), 10, 64)
	if err != nil {
		return nil, err
	}
	group := s.plan.group(number)
	request, err := http.NewRequestWithContext(r.Context(), group.Method, group.URL, nil)
	if err != nil {
		return nil, err
	}
	for name, value := range group.Headers {
		if strings.EqualFold(name, "host") {
			request.Host = value
		}
		request.Header.Set(name, value)
	}
	request.Header.Set("X-Request-Id", s.plan.requestID(s.first+number))
	return s.next.RoundTrip(request)
}

func (p *Plan) group(number uint64) Group { return p.Groups[number%uint64(len(p.Groups))] }

func newClient(plan Plan) *http.Client {
	limit := time.Duration(plan.Timeout * float64(time.Second))
	return &http.Client{
		Timeout:       limit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{ // no proxy from the environment: the target is what the plan says
			DialContext:         (&net.Dialer{Timeout: limit}).DialContext,
			MaxIdleConns:        plan.Concurrency,
			MaxIdleConnsPerHost: plan.Concurrency,
			IdleConnTimeout:     30 * time.Second,
			DisableKeepAlives:   plan.Fresh,
			DisableCompression:  true,
		},
	}
}

// describe turns vegeta's result into a line of the report.
func describe(plan Plan, result *vegeta.Result, began time.Time) Line {
	line := Line{
		Number:  result.Seq,
		Group:   plan.group(result.Seq).Name,
		At:      result.Timestamp.Sub(began).Seconds(),
		Seconds: result.Latency.Seconds(),
		Status:  int(result.Code),
		ID:      plan.requestID(result.Seq),
		Served:  result.Headers.Values(service.ServedBy),
	}
	if line.Served == nil {
		line.Served = []string{}
	}
	if line.Status == 0 {
		line.Error = cause(result.Error)
	} else if found := podname.FindSubmatch(result.Body); found != nil {
		line.Pod = string(found[1])
	}
	return line
}

// causes lead from what Go's net package says to the report's word for it. Those that begin with
// "client:" are this program's own and say nothing about the target.
var causes = []struct{ said, word string }{
	{"too many open files", "client: too many open files"},
	{"cannot assign requested address", "client: out of ports"},
	{"no buffer space available", "client: out of memory"},
	{"no such host", "client: name not found"},
	{"lookup ", "client: name not found"},
	{"context canceled", "client: stopped"},
	{"deadline exceeded", "timeout"},
	{"Client.Timeout", "timeout"},
	{"i/o timeout", "timeout"},
	{"connection refused", "refused"},
	{"connection reset", "reset"},
	{"broken pipe", "reset"},
	{"EOF", "reset"},
	{"server closed", "reset"},
	{"no route to host", "unreachable"},
	{"network is unreachable", "unreachable"},
	{"tls:", "tls"},
	{"malformed HTTP", "not http"},
}

func cause(said string) string {
	for _, c := range causes {
		if strings.Contains(said, c.said) {
			return c.word
		}
	}
	return "other: " + said
}
