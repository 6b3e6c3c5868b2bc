// Package forward copies the headers that make separate HTTP calls one trace.
//
// A sidecar cannot know which outgoing call belongs to which incoming request:
// only the application can tell, by handing these headers on.
// https://istio.io/latest/docs/tasks/observability/distributed-tracing/overview/
package forward

import (
	"net/http"
	"os"
	"strconv"
)

// Trace headers tie spans together. FORWARD_TRACE_HEADERS=false withholds them.
var Trace = []string{
	"x-request-id",
	"x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags", "b3",
	"traceparent", "tracestate",
	"x-ot-span-context",
}

// Identity headers say who asks. Routing by user needs them, so they always travel.
var Identity = []string{"end-user", "user-agent", "cookie", "authorization"}

// Enabled reads FORWARD_TRACE_HEADERS; anything that is not a false boolean means yes.
func Enabled() bool {
	on, err := strconv.ParseBool(os.Getenv("FORWARD_TRACE_HEADERS"))
	return err != nil || on
}

// Headers returns those of in that the next call must carry.
func Headers(in http.Header, trace bool) http.Header {
	out := http.Header{}
	carry(out, in, Identity)
	if trace {
		carry(out, in, Trace)
	}
	return out
}

func carry(out, in http.Header, names []string) {
	for _, name := range names {
		if values := in.Values(name); len(values) > 0 {
			out[http.CanonicalHeaderKey(name)] = values
		}
	}
}
