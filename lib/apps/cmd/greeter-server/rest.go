package main

import (
	"encoding/json"
	"net/http"

	pb "stackbook.dev/apps/internal/pb/helloworld"
)

// The same greeting as a REST developer would write it: JSON over HTTP/1.1, the work done by the same method.

type restRequest struct {
	Name    string `json:"name"`
	Padding uint32 `json:"padding,omitempty"`
}

type restReply struct {
	Message string `json:"message"`
	Pod     string `json:"pod"`
	Version string `json:"version"`
	Padding []byte `json:"padding,omitempty"` // base64, as JSON has no bytes
}

func rest(g *greeter) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/hello", func(w http.ResponseWriter, r *http.Request) {
		var in restRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<20)).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out, err := g.SayHello(r.Context(), &pb.HelloRequest{Name: in.Name, Padding: in.Padding})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		server := out.GetServer()
		_ = json.NewEncoder(w).Encode(restReply{out.GetMessage(), server.GetPod(), server.GetVersion(), out.GetPadding()})
	})
	return mux
}
