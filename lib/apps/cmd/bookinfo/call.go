package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"stackbook.dev/apps/internal/service"
)

const maxAnswer = 1 << 20 // bytes; no answer of this sample is near it

// get calls another service once and decodes its JSON into answer.
// The status is 0 when nothing answered within the time limit. Whoever served the call is
// added to w's X-Served-By header, so that one response tells the whole path.
func (a app) get(w http.ResponseWriter, in *http.Request, headers http.Header, url string, limit time.Duration, answer any) int {
	ctx, cancel := context.WithTimeout(in.Context(), limit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	request.Header = headers
	response, err := a.client.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	for _, hop := range response.Header.Values(service.ServedBy) {
		w.Header().Add(service.ServedBy, hop)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0
	}
	if response.StatusCode == http.StatusOK && json.Unmarshal(body, answer) != nil {
		return http.StatusBadGateway
	}
	return response.StatusCode
}
