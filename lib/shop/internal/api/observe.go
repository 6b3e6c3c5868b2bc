package api

import (
	"context"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"stackbook.dev/shop/internal/trace"
)

const patience = 8 * time.Second // for one request; it is longer than what its calls may take

var requests = promauto.NewHistogramVec(prometheus.HistogramOpts{
	Name: "shop_http_request_seconds", Help: "Duration of requests.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 13),
}, []string{"method", "route", "status"})

// observe gives a request a deadline and its trace headers; it counts the request and writes a line about it.
func (a *API) observe(c *gin.Context) {
	started, headers := time.Now(), trace.FromHTTP(c.Request.Header)
	ctx, cancel := context.WithTimeout(trace.With(c.Request.Context(), headers), patience)
	defer cancel()
	c.Request = c.Request.WithContext(ctx)
	c.Next()
	took, status := time.Since(started), c.Writer.Status()
	requests.WithLabelValues(c.Request.Method, c.FullPath(), strconv.Itoa(status)).Observe(took.Seconds())
	line := []any{
		"method", c.Request.Method, "path", c.Request.URL.Path, "status", status,
		"ms", float64(took.Microseconds()) / 1000, "cache", c.Writer.Header().Get(cacheHeader),
		"trace", headers.ID(), "request_id", headers["x-request-id"],
	}
	if len(c.Errors) > 0 {
		a.Log.Error("request", append(line, "error", c.Errors.String())...)
		return
	}
	a.Log.Info("request", line...)
}
