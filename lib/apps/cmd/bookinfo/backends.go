package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"stackbook.dev/apps/internal/forward"
	"stackbook.dev/apps/internal/service"
)

func details(app) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", health("Details is healthy"))
	mux.HandleFunc("GET /details/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil {
			writeJSON(w, http.StatusBadRequest, failure("please provide numeric product id"))
			return
		}
		writeJSON(w, http.StatusOK, map[string]any{
			"id": id, "author": "William Shakespeare", "year": 1595, "type": "paperback", "pages": 200,
			"publisher": "PublisherA", "language": "English", "ISBN-10": "1234567890", "ISBN-13": "123-1234567890",
		})
	})
	return mux
}

type ratingsAnswer struct {
	ID      int            `json:"id"`
	Ratings map[string]int `json:"ratings"`
}

// ratings answers like the sample: two ratings, replaced for one product by a POST.
func ratings(app) http.Handler {
	var lock sync.Mutex
	stored := map[int]map[string]int{}
	productID := func(w http.ResponseWriter, r *http.Request) (int, bool) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil {
			writeJSON(w, http.StatusBadRequest, failure("please provide numeric product ID"))
		}
		return id, err == nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", health("Ratings is healthy"))
	mux.HandleFunc("GET /ratings/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, ok := productID(w, r)
		if !ok {
			return
		}
		lock.Lock()
		values, found := stored[id]
		lock.Unlock()
		if !found {
			values = map[string]int{"Reviewer1": 5, "Reviewer2": 4}
		}
		writeJSON(w, http.StatusOK, ratingsAnswer{id, values})
	})
	mux.HandleFunc("POST /ratings/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, ok := productID(w, r)
		if !ok {
			return
		}
		values := map[string]int{}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&values); err != nil {
			writeJSON(w, http.StatusBadRequest, failure("please provide valid ratings JSON"))
			return
		}
		lock.Lock()
		defer lock.Unlock()
		if len(stored) < 1000 { // a sample's memory stays small whoever posts
			stored[id] = values
		}
		writeJSON(w, http.StatusOK, ratingsAnswer{id, values})
	})
	return mux
}

type rating struct {
	Stars int    `json:"stars,omitempty"`
	Color string `json:"color,omitempty"`
	Error string `json:"error,omitempty"`
}

type review struct {
	Reviewer string  `json:"reviewer"`
	Text     string  `json:"text"`
	Rating   *rating `json:"rating,omitempty"`
}

type reviewsAnswer struct {
	ID          string   `json:"id"`
	PodName     string   `json:"podname"`
	ClusterName string   `json:"clustername"`
	Reviews     []review `json:"reviews"`
}

var texts = []review{
	{Reviewer: "Reviewer1", Text: "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!"},
	{Reviewer: "Reviewer2", Text: "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare."},
}

// stars says whether a version shows ratings and in which colour: v1 none, v2 black, v3 red.
// ENABLE_RATINGS and STAR_COLOR decide where they are set, as in the sample's images.
func stars(version string) (bool, string) {
	color := map[string]string{"v3": "red"}[version]
	if color == "" {
		color = "black"
	}
	enabled, err := strconv.ParseBool(os.Getenv("ENABLE_RATINGS"))
	if err != nil {
		enabled = version != "v1"
	}
	return enabled, service.Env("STAR_COLOR", color)
}

func reviews(a app) http.Handler {
	enabled, color := stars(a.id.Version)
	limit := 2500 * time.Millisecond
	if color == "black" {
		limit = 10 * time.Second // the sample's own inequality: v2 waits longer than productpage does for v2
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", health("Reviews is healthy"))
	mux.HandleFunc("GET /reviews/{id}", func(w http.ResponseWriter, r *http.Request) {
		answer := reviewsAnswer{
			ID: r.PathValue("id"), PodName: a.id.Pod, ClusterName: service.Env("CLUSTER_NAME", "null"),
			Reviews: append([]review(nil), texts...),
		}
		if enabled {
			var got ratingsAnswer
			url := upstream("RATINGS", "ratings") + "/ratings/" + answer.ID
			status := a.get(w, r, forward.Headers(r.Header, a.forward), url, limit, &got)
			for i := range answer.Reviews {
				if status == http.StatusOK {
					answer.Reviews[i].Rating = &rating{Stars: got.Ratings[answer.Reviews[i].Reviewer], Color: color}
				} else {
					answer.Reviews[i].Rating = &rating{Error: "Ratings service is currently unavailable"}
				}
			}
		}
		writeJSON(w, http.StatusOK, answer)
	})
	return mux
}
