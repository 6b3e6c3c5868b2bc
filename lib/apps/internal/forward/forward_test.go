package forward

import (
	"net/http"
	"testing"
)

func incoming() http.Header {
	in := http.Header{}
	for _, name := range append(append([]string{"x-secret"}, Trace...), Identity...) {
		in.Set(name, "value of "+name)
	}
	return in
}

func TestHeadersCarriesTraceAndIdentityAndNothingElse(t *testing.T) {
	out := Headers(incoming(), true)
	for _, name := range append(append([]string{}, Trace...), Identity...) {
		if got := out.Get(name); got != "value of "+name {
			t.Errorf("%s = %q", name, got)
		}
	}
	if len(out) != len(Trace)+len(Identity) {
		t.Errorf("other headers were carried: %v", out)
	}
}

func TestHeadersWithoutTraceKeepsIdentity(t *testing.T) {
	out := Headers(incoming(), false)
	if len(out) != len(Identity) || out.Get("end-user") == "" {
		t.Errorf("want the identity headers only, got %v", out)
	}
}

func TestEnabled(t *testing.T) {
	for value, want := range map[string]bool{"": true, "true": true, "yes": true, "false": false, "0": false} {
		t.Setenv("FORWARD_TRACE_HEADERS", value)
		if got := Enabled(); got != want {
			t.Errorf("FORWARD_TRACE_HEADERS=%q: %v", value, got)
		}
	}
}
