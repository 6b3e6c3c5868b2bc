package main

import (
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"stackbook.dev/apps/internal/forward"
)

//go:embed static
var files embed.FS

var page = template.Must(template.New("page.html").
	Funcs(template.FuncMap{"stars": func(n int) string {
		n = min(max(n, 0), 5)
		return strings.Repeat("★", n) + strings.Repeat("☆", 5-n)
	}}).ParseFS(files, "static/page.html"))

type product struct {
	ID              int           `json:"id"`
	Title           string        `json:"title"`
	DescriptionHTML template.HTML `json:"descriptionHtml"`
}

var products = []product{{
	ID: 0, Title: "The Comedy of Errors",
	DescriptionHTML: `<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">Wikipedia Summary</a>: ` +
		`The Comedy of Errors is one of <b>William Shakespeare's</b> early plays. It is his shortest and one of ` +
		`his most farcical comedies, with a major part of the humour coming from slapstick and mistaken identity, ` +
		`in addition to puns and word play.`,
}}

// The sample's time limit and its number of tries for reviews.
// "Do not remove", says the sample: chapter 07 finds this by a delay of five seconds.
const (
	callLimit    = 3 * time.Second
	reviewsTries = 2
)

func unavailable(what string) map[string]string {
	return failure("Sorry, product " + what + " are currently unavailable for this book.")
}

type front struct{ app }

func productpage(a app) http.Handler {
	f := front{a}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", f.index)
	mux.HandleFunc("GET /index.html", f.index)
	mux.HandleFunc("GET /productpage", f.productpage)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("Product page is healthy"))
	})
	mux.HandleFunc("POST /login", f.login)
	mux.HandleFunc("GET /logout", f.logout)
	mux.Handle("GET /static/", http.FileServerFS(files))
	mux.HandleFunc("GET /api/v1/products", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, products)
	})
	mux.HandleFunc("GET /api/v1/products/{id}", f.api(f.details))
	mux.HandleFunc("GET /api/v1/products/{id}/reviews", f.api(f.reviews))
	mux.HandleFunc("GET /api/v1/products/{id}/ratings", f.api(f.ratings))
	return mux
}

// fetch asks one service for one product: the status to hand on, and its JSON or an error text.
type fetch func(http.ResponseWriter, *http.Request, string) (int, any)

func (f front) ask(w http.ResponseWriter, r *http.Request, url, what string, tries int, answer any) (int, any) {
	status := 0
	for range tries {
		if status = f.get(w, r, f.headers(r), url, callLimit, answer); status == http.StatusOK {
			return status, answer
		}
	}
	if status == 0 {
		status = http.StatusInternalServerError
	}
	return status, unavailable(what)
}

func (f front) details(w http.ResponseWriter, r *http.Request, id string) (int, any) {
	return f.ask(w, r, upstream("DETAILS", "details")+"/details/"+id, "details", 1, &map[string]any{})
}

func (f front) reviews(w http.ResponseWriter, r *http.Request, id string) (int, any) {
	return f.ask(w, r, upstream("REVIEWS", "reviews")+"/reviews/"+id, "reviews", reviewsTries, &reviewsAnswer{})
}

func (f front) ratings(w http.ResponseWriter, r *http.Request, id string) (int, any) {
	return f.ask(w, r, upstream("RATINGS", "ratings")+"/ratings/"+id, "ratings", 1, &ratingsAnswer{})
}

func (f front) api(get fetch) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		if _, err := strconv.Atoi(id); err != nil {
			writeJSON(w, http.StatusBadRequest, failure("please provide numeric product id"))
			return
		}
		status, answer := get(w, r, id)
		writeJSON(w, status, answer)
	}
}

// headers carries the incoming headers on and turns the signed-in user into end-user.
func (f front) headers(r *http.Request) http.Header {
	out := forward.Headers(r.Header, f.forward)
	if name := user(r); name != "" {
		out.Set("end-user", name)
	}
	return out
}

type view struct {
	Product     product
	User        string
	Details     map[string]any
	Reviews     *reviewsAnswer
	DetailsFail string
	ReviewsFail string
	Home        bool
}

func (f front) index(w http.ResponseWriter, r *http.Request) {
	render(w, view{Home: true, User: user(r)})
}

func (f front) productpage(w http.ResponseWriter, r *http.Request) {
	shown := view{Product: products[0], User: user(r)}
	switch _, got := f.details(w, r, "0"); got := got.(type) {
	case *map[string]any:
		shown.Details = *got
	case map[string]string:
		shown.DetailsFail = got["error"]
	}
	switch _, got := f.reviews(w, r, "0"); got := got.(type) {
	case *reviewsAnswer:
		shown.Reviews = got
	case map[string]string:
		shown.ReviewsFail = got["error"]
	}
	render(w, shown)
}

func render(w http.ResponseWriter, shown view) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, shown)
}

const session = "session"

// login takes any name without a password, as the sample does: it shows routing by user, not security.
func (f front) login(w http.ResponseWriter, r *http.Request) {
	name := r.PostFormValue("username")
	if len(name) > 64 {
		writeJSON(w, http.StatusBadRequest, failure("the user name is too long"))
		return
	}
	value := base64.RawURLEncoding.EncodeToString([]byte(name))
	http.SetCookie(w, &http.Cookie{Name: session, Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, "/productpage", http.StatusFound)
}

func (f front) logout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: session, Path: "/", MaxAge: -1, HttpOnly: true})
	http.Redirect(w, r, "/productpage", http.StatusFound)
}

func user(r *http.Request) string {
	cookie, err := r.Cookie(session)
	if err != nil {
		return ""
	}
	name, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || strings.ContainsFunc(string(name), func(c rune) bool { return c < ' ' || c > '~' }) {
		return "" // it becomes a header: nothing but printable ASCII
	}
	return string(name)
}
