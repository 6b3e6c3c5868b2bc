package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"stackbook.dev/shop/internal/catalogue"
	"stackbook.dev/shop/internal/order"
	"stackbook.dev/shop/internal/service"
	"stackbook.dev/shop/internal/trace"
)

const (
	id     = "0e8f4a52-6c0b-4a86-9a3f-0d8f1f6a7b11"
	parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)

type shop struct {
	err   error
	fresh bool
	trace string
}

func (s *shop) Books(context.Context) ([]catalogue.Book, string, error) {
	return []catalogue.Book{{ID: "hamlet", Title: "Hamlet", PriceCents: 990}}, catalogue.Hit, s.err
}

func (s *shop) Book(_ context.Context, book string) (catalogue.Book, string, error) {
	return catalogue.Book{ID: book}, catalogue.Miss, s.err
}

func (s *shop) Place(ctx context.Context, id string, draft order.Draft) (order.Order, bool, error) {
	s.trace = trace.From(ctx).ID()
	return order.Order{ID: id, Draft: draft}, s.fresh, s.err
}

func (s *shop) Find(context.Context, string) (order.Order, error) { return order.Order{ID: id}, s.err }

func api(s *shop, log io.Writer) http.Handler {
	health := &service.Health{}
	a := &API{Catalogue: s, Orders: s, Health: health, Log: slog.New(slog.NewJSONHandler(log, nil))}
	return a.Handler()
}

func ask(handler http.Handler, method, path, body string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, path, strings.NewReader(body))
	request.Header.Set("traceparent", parent)
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request)
	return answer
}

func TestEachOutcomeHasItsStatus(t *testing.T) {
	const draft = `{"customer":"Ada","book":"hamlet","quantity":2}`
	away := errors.New("dial tcp 10.0.0.1: secret detail")
	for _, c := range []struct {
		method, path, body string
		shop               shop
		want               int
	}{
		{"GET", "/books", "", shop{}, 200},
		{"GET", "/books/hamlet", "", shop{}, 200},
		{"GET", "/books/x", "", shop{err: catalogue.ErrUnknown}, 404},
		{"GET", "/books", "", shop{err: away}, 503},
		{"POST", "/orders", draft, shop{fresh: true}, 201},
		{"PUT", "/orders/" + id, draft, shop{fresh: true}, 201},
		{"PUT", "/orders/" + id, draft, shop{}, 200},
		{"PUT", "/orders/7", draft, shop{}, 400},
		{"POST", "/orders", `{"customer":"Ada","book":"hamlet"}`, shop{}, 400},
		{"POST", "/orders", `{"customer":"Ada","book":"hamlet","quantity":-1}`, shop{}, 400},
		{"POST", "/orders", "{", shop{}, 400},
		{"POST", "/orders", draft, shop{err: order.ErrSoldOut}, 409},
		{"POST", "/orders", draft, shop{err: order.ErrConflict}, 409},
		{"POST", "/orders", draft, shop{err: order.ErrStockAway}, 503},
		{"GET", "/orders/" + id, "", shop{}, 200},
		{"GET", "/orders/" + id, "", shop{err: order.ErrUnknown}, 404},
		{"GET", "/docs/", "", shop{}, 200},
		{"GET", "/docs/swagger-ui-bundle.js", "", shop{}, 200},
		{"GET", "/docs/swagger-ui.css", "", shop{}, 200},
		{"GET", "/openapi.yaml", "", shop{}, 200},
		{"GET", "/readyz", "", shop{}, 200},
		{"GET", "/metrics", "", shop{}, 200},
	} {
		answer := ask(api(&c.shop, io.Discard), c.method, c.path, c.body)
		if answer.Code != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, answer.Code, c.want)
		}
		if strings.Contains(answer.Body.String(), "secret detail") {
			t.Errorf("%s %s shows what is inside", c.method, c.path)
		}
	}
}

func TestTheTraceOfARequestIsHandedOnAndLogged(t *testing.T) {
	s, log := &shop{fresh: true}, &bytes.Buffer{}
	ask(api(s, log), "POST", "/orders", `{"customer":"Ada","book":"hamlet","quantity":2}`)
	if s.trace != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("the order has the trace %q", s.trace)
	}
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil || line["trace"] != s.trace || line["status"] != 201.0 {
		t.Errorf("log %s, %v", log, err)
	}
}

// The description has the shop's operations, and no others.
func TestTheDescriptionHasEveryOperation(t *testing.T) {
	var described, served []string
	path := ""
	for line := range strings.Lines(string(description)) {
		if found := regexp.MustCompile(`^  (/\S*):`).FindStringSubmatch(line); found != nil {
			path = found[1]
		} else if found := regexp.MustCompile(`^    (get|put|post|delete|patch):`).FindStringSubmatch(line); found != nil {
			described = append(described, strings.ToUpper(found[1])+" "+path)
		}
	}
	inside := []string{"/healthz", "/readyz", "/metrics", "/openapi.yaml", "/docs/"}
	health := &service.Health{}
	for _, route := range (&API{Health: health}).Handler().Routes() {
		if !slices.ContainsFunc(inside, func(prefix string) bool { return strings.HasPrefix(route.Path, prefix) }) {
			served = append(served, route.Method+" "+strings.Replace(route.Path, ":id", "{id}", 1))
		}
	}
	slices.Sort(described)
	slices.Sort(served)
	if len(served) != 5 || !slices.Equal(described, served) {
		t.Errorf("described %v, served %v", described, served)
	}
}
