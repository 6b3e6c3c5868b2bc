package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// Line is what the report says of one request.
type Line struct {
	Number  uint64   `json:"n"`
	Group   string   `json:"group"`
	At      float64  `json:"at"`      // seconds since the start
	Seconds float64  `json:"seconds"` // until the body was read
	Status  int      `json:"status"`  // 0: no complete answer, see Error
	Error   string   `json:"error"`
	ID      string   `json:"id"`
	Served  []string `json:"served"` // X-Served-By: who took part, the nearest first
	Pod     string   `json:"pod"`    // the body's podname, as the bookinfo sample answers it
}

// Summary is the report's last line. A report without it is not whole.
type Summary struct {
	Began   float64 `json:"began"`   // Unix time of the start, seconds
	Sent    int     `json:"sent"`    // requests reported
	Seconds float64 `json:"seconds"` // from the start to the last answer
	Late    float64 `json:"late"`    // most that a request started behind its time, seconds; 0 without a rate
	Stopped bool    `json:"stopped"` // a signal ended it early
}

// Run carries out the plan and writes a Line for each request, then the Summary; answered counts them meanwhile.
func Run(ctx context.Context, plan Plan, out io.Writer, answered *atomic.Int64) error {
	client := newClient(plan)
	defer client.CloseIdleConnections()
	if plan.Warmup > 0 {
		before := plan
		before.Count = plan.Warmup
		for range attack(ctx, before, client, maxCount) { // their numbers come after those of the report
		}
	}
	writer := bufio.NewWriterSize(out, 1<<16)
	encoder := json.NewEncoder(writer)
	began := time.Now()
	total := Summary{Began: float64(began.UnixMicro()) / 1e6}
	for result := range attack(ctx, plan, client, 0) {
		line := describe(plan, result, began)
		total.Sent++
		answered.Add(1)
		if plan.Rate > 0 {
			total.Late = max(total.Late, line.At-float64(line.Number)/plan.Rate)
		}
		if err := encoder.Encode(line); err != nil {
			return err // nobody reads: vegeta's workers end with the process
		}
	}
	total.Seconds = time.Since(began).Seconds()
	total.Stopped = ctx.Err() != nil
	if err := encoder.Encode(map[string]Summary{"summary": total}); err != nil {
		return err
	}
	return writer.Flush()
}

// attack starts the requests and returns their results; it ends early with ctx.
func attack(ctx context.Context, plan Plan, client *http.Client, first uint64) <-chan *vegeta.Result {
	numbered := *client
	numbered.Transport = sender{plan: plan, first: first, next: client.Transport}
	attacker := vegeta.NewAttacker(
		vegeta.Client(&numbered), vegeta.MaxBody(maxBody),
		vegeta.Workers(1), vegeta.MaxWorkers(uint64(plan.Concurrency)),
	)
	context.AfterFunc(ctx, func() { attacker.Stop() })
	// What a request is, the sender decides by its number.
	targeter := vegeta.NewStaticTargeter(vegeta.Target{Method: http.MethodGet, URL: plan.Groups[0].URL})
	duration := time.Duration(plan.Seconds * float64(time.Second))
	return attacker.Attack(targeter, pacer{plan}, duration, "")
}

// pacer is vegeta's constant pace, ended after Count requests.
type pacer struct{ plan Plan }

func (p pacer) Rate(time.Duration) float64 { return p.plan.Rate }

func (p pacer) Pace(elapsed time.Duration, hits uint64) (time.Duration, bool) {
	if hits >= uint64(p.plan.Count) {
		return 0, true
	}
	if p.plan.Rate == 0 {
		return 0, false
	}
	due := time.Duration(float64(hits) / p.plan.Rate * float64(time.Second))
	return max(0, due-elapsed), false
}
