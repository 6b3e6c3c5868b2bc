package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"stackbook.dev/apps/internal/forward"
	"stackbook.dev/apps/internal/service"
)

// place starts one service and points the sample's variables at it.
func place(t *testing.T, name, version string, handler http.Handler) *httptest.Server {
	t.Helper()
	t.Setenv("SERVICE_VERSION", version)
	t.Setenv("HOSTNAME", name+"-"+version+"-abc")
	if handler == nil {
		handler = services[name](newApp(name))
	}
	observed := service.Server{Identity: service.Whoami(name), Log: io.Discard}
	server := httptest.NewServer(observed.Observe(handler))
	t.Cleanup(server.Close)
	at, _ := url.Parse(server.URL)
	t.Setenv(strings.ToUpper(name)+"_HOSTNAME", at.Hostname())
	t.Setenv(strings.ToUpper(name)+"_SERVICE_PORT", at.Port())
	return server
}

func get(t *testing.T, address string, header http.Header) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header
	if header == nil {
		request.Header = http.Header{}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal([]byte(got), &a); err != nil {
		t.Fatalf("%v in %q", err, got)
	}
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDetails(t *testing.T) {
	server := place(t, "details", "v1", nil)
	_, body := get(t, server.URL+"/details/0", nil)
	sameJSON(t, body, `{"id":0,"author":"William Shakespeare","year":1595,"type":"paperback","pages":200,
		"publisher":"PublisherA","language":"English","ISBN-10":"1234567890","ISBN-13":"123-1234567890"}`)
	if response, body := get(t, server.URL+"/details/x", nil); response.StatusCode != 400 || !strings.Contains(body, "numeric") {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	_, body = get(t, server.URL+"/health", nil)
	sameJSON(t, body, `{"status":"Details is healthy"}`)
}

func TestRatings(t *testing.T) {
	server := place(t, "ratings", "v1", nil)
	_, body := get(t, server.URL+"/ratings/0", nil)
	sameJSON(t, body, `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}`)
	response, err := http.Post(server.URL+"/ratings/0", "application/json", strings.NewReader(`{"Reviewer1":1}`))
	if err != nil || response.StatusCode != 200 {
		t.Fatal(response, err)
	}
	_, body = get(t, server.URL+"/ratings/0", nil)
	sameJSON(t, body, `{"id":0,"ratings":{"Reviewer1":1}}`)
}

const plain = `{"reviewer":"Reviewer1","text":"An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!"RATING},
	{"reviewer":"Reviewer2","text":"Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare."RATING}`

func TestReviewsShapePerVersion(t *testing.T) {
	place(t, "ratings", "v1", nil)
	for version, color := range map[string]string{"v1": "", "v2": "black", "v3": "red"} {
		server := place(t, "reviews", version, nil)
		response, body := get(t, server.URL+"/reviews/0", nil)
		want := plain
		for _, stars := range []string{"5", "4"} {
			block := ""
			if color != "" {
				block = `,"rating":{"stars":` + stars + `,"color":"` + color + `"}`
			}
			want = strings.Replace(want, "RATING", block, 1)
		}
		sameJSON(t, body, `{"id":"0","podname":"reviews-`+version+`-abc","clustername":"null","reviews":[`+want+`]}`)
		served := response.Header.Values(service.ServedBy)
		if served[0] != "reviews/"+version+" reviews-"+version+"-abc" || (len(served) == 2) != (color != "") {
			t.Errorf("%s: %v", version, served)
		}
	}
}

func TestReviewsHonoursTheSamplesVariables(t *testing.T) {
	t.Setenv("ENABLE_RATINGS", "true")
	t.Setenv("STAR_COLOR", "blue")
	if on, color := stars("v1"); !on || color != "blue" {
		t.Error(on, color)
	}
	t.Setenv("ENABLE_RATINGS", "false")
	if on, _ := stars("v3"); on {
		t.Error("ENABLE_RATINGS=false must win")
	}
}

func TestReviewsSaysThatRatingsAreGone(t *testing.T) {
	place(t, "ratings", "v1", http.NotFoundHandler())
	server := place(t, "reviews", "v2", nil)
	response, body := get(t, server.URL+"/reviews/0", nil)
	if response.StatusCode != 200 {
		t.Error(response.Status)
	}
	want := strings.ReplaceAll(plain, "RATING", `,"rating":{"error":"Ratings service is currently unavailable"}`)
	sameJSON(t, body, `{"id":"0","podname":"reviews-v2-abc","clustername":"null","reviews":[`+want+`]}`)
}

func stack(t *testing.T, version string) *httptest.Server {
	place(t, "ratings", "v1", nil)
	place(t, "details", "v1", nil)
	place(t, "reviews", version, nil)
	return place(t, "productpage", "v1", nil)
}

func TestProductpageShowsDetailsAndStars(t *testing.T) {
	server := stack(t, "v3")
	response, body := get(t, server.URL+"/productpage", nil)
	for _, want := range []string{"<title>Simple Bookstore App</title>", "PublisherA", "slapstick humour",
		`<font color="red">★★★★★</font>`, `<font color="red">★★★★☆</font>`, "Reviews served by: reviews-v3-abc",
		"123-1234567890"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	if got := response.Header.Values(service.ServedBy); strings.Join(got, ", ") !=
		"productpage/v1 productpage-v1-abc, details/v1 details-v1-abc, reviews/v3 reviews-v3-abc, ratings/v1 ratings-v1-abc" {
		t.Errorf("path: %v", got)
	}
	for _, path := range []string{"/", "/health", "/static/style.css"} {
		if response, _ := get(t, server.URL+path, nil); response.StatusCode != 200 {
			t.Errorf("%s: %s", path, response.Status)
		}
	}
}

func TestProductpageAPI(t *testing.T) {
	server := stack(t, "v2")
	_, body := get(t, server.URL+"/api/v1/products", nil)
	var list []map[string]any
	if err := json.Unmarshal([]byte(body), &list); err != nil || list[0]["title"] != "The Comedy of Errors" || list[0]["id"] != 0.0 {
		t.Error(body, err)
	}
	_, body = get(t, server.URL+"/api/v1/products/0/ratings", nil)
	sameJSON(t, body, `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}`)
	_, body = get(t, server.URL+"/api/v1/products/0/reviews", nil)
	if !strings.Contains(body, `"podname":"reviews-v2-abc"`) {
		t.Error(body)
	}
	_, body = get(t, server.URL+"/api/v1/products/0", nil)
	if !strings.Contains(body, `"year":1595`) {
		t.Error(body)
	}
	if response, _ := get(t, server.URL+"/api/v1/products/x/reviews", nil); response.StatusCode != 400 {
		t.Error(response.Status)
	}
}

func TestProductpageDegrades(t *testing.T) {
	tries := 0
	place(t, "details", "v1", nil)
	place(t, "reviews", "v1", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		tries++
		http.Error(w, "fault filter abort", http.StatusInternalServerError)
	}))
	server := place(t, "productpage", "v1", nil)
	response, body := get(t, server.URL+"/productpage", nil)
	if response.StatusCode != 200 || tries != 2 {
		t.Errorf("%s after %d tries; want 200 after one retry", response.Status, tries)
	}
	for _, want := range []string{"Error fetching product reviews",
		"Sorry, product reviews are currently unavailable for this book.", "PublisherA"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	response, body = get(t, server.URL+"/api/v1/products/0/reviews", nil)
	if response.StatusCode != 500 || !strings.Contains(body, "Sorry, product reviews") {
		t.Error(response.Status, body)
	}
	t.Setenv("DETAILS_SERVICE_PORT", "1") // nobody listens there
	if _, body = get(t, server.URL+"/productpage", nil); !strings.Contains(body, "Sorry, product details are currently unavailable") {
		t.Error(body)
	}
}

func TestHeadersReachTheLastService(t *testing.T) {
	for _, on := range []string{"true", "false"} {
		t.Setenv("FORWARD_TRACE_HEADERS", on)
		var seen http.Header
		place(t, "details", "v1", nil)
		place(t, "ratings", "v1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen = r.Header.Clone()
			writeJSON(w, 200, ratingsAnswer{})
		}))
		place(t, "reviews", "v2", nil)
		server := place(t, "productpage", "v1", nil)
		sent := http.Header{}
		for _, name := range append(append([]string{}, forward.Trace...), forward.Identity...) {
			sent.Set(name, "sent")
		}
		get(t, server.URL+"/productpage", sent)
		for _, name := range forward.Identity {
			if seen.Get(name) != "sent" {
				t.Errorf("trace headers %s: %s = %q", on, name, seen.Get(name))
			}
		}
		for _, name := range forward.Trace {
			if got := seen.Get(name) == "sent"; got != (on == "true") {
				t.Errorf("trace headers %s: %s = %q", on, name, seen.Get(name))
			}
		}
	}
}

func TestLoginBecomesEndUserAndLogoutEndsIt(t *testing.T) {
	var seen string
	place(t, "details", "v1", nil)
	place(t, "reviews", "v1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("end-user")
		writeJSON(w, 200, reviewsAnswer{})
	}))
	server := place(t, "productpage", "v1", nil)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.PostForm(server.URL+"/login", url.Values{"username": {"jason"}})
	if err != nil || response.StatusCode != 302 || len(response.Cookies()) != 1 {
		t.Fatal(response, err)
	}
	_, body := get(t, server.URL+"/productpage", http.Header{"Cookie": {response.Cookies()[0].String()}})
	if seen != "jason" || !strings.Contains(body, "jason (<a href=\"/logout\">") {
		t.Errorf("end-user %q", seen)
	}
	response, _ = get(t, server.URL+"/logout", nil) // follows to the page
	get(t, server.URL+"/productpage", nil)
	if seen != "" {
		t.Errorf("signed out, but end-user is %q", seen)
	}
	get(t, server.URL+"/productpage", http.Header{"Cookie": {"session=aGEKaGE"}}) // "ha\nha"
	if seen != "" {
		t.Errorf("a line break reached a header: %q", seen)
	}
	_ = response
}
