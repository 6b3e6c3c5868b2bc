// Package main serves the ratings of books, and describes itself for go-swagger.
//
//	Schemes: http
//	BasePath: /
//	Version: 1.0.0
//	Produces:
//	- application/json
//
// swagger:meta
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
)

// Ratings of one product by its reviewers.
//
// swagger:model
type Ratings struct {
	// The product.
	//
	// required: true
	// minimum: 0
	ID int `json:"id"`
	// Stars by reviewer.
	//
	// required: true
	Ratings map[string]int `json:"ratings"`
}

// Problem says why a request was refused.
//
// swagger:model
type Problem struct {
	// required: true
	Error string `json:"error"`
}

// swagger:parameters getRatings
type _ struct {
	// The product.
	//
	// in: path
	// required: true
	// minimum: 0
	ID int `json:"id"`
}

// The ratings of a product.
//
// swagger:response ratings
type _ struct {
	// in: body
	Body Ratings
}

// The request was refused.
//
// swagger:response problem
type _ struct {
	// in: body
	Body Problem
}

// swagger:route GET /ratings/{id} ratings getRatings
//
// The ratings of one product.
//
//	Responses:
//	  200: ratings
//	  400: problem
func getRatings(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || id < 0 {
		write(w, http.StatusBadRequest, Problem{"please provide a numeric product id"})
		return
	}
	write(w, http.StatusOK, Ratings{ID: id, Ratings: map[string]int{"Reviewer1": 5, "Reviewer2": 4}})
}

func write(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the client has gone: nobody is left to tell
}

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen; port 0 takes a free one")
	flag.Parse()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ratings/{id}", getRatings)
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ratings:", err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr())
	fmt.Fprintln(os.Stderr, "ratings:", http.Serve(listener, mux))
	os.Exit(1)
}
