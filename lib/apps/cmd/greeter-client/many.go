package main

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	pb "stackbook.dev/apps/internal/pb/helloworld"
)

// summary counts calls by who answered and by how they ended.
type summary struct {
	Calls     int            `json:"calls"`
	ByPod     map[string]int `json:"by_pod"`
	ByVersion map[string]int `json:"by_version"`
	ByCode    map[string]int `json:"by_code"`
	Messages  []string       `json:"errors,omitempty"` // each different error once
	Seconds   float64        `json:"seconds"`
}

func many(ctx context.Context, client pb.GreeterClient, o options, name string) *summary {
	out := &summary{ByPod: map[string]int{}, ByVersion: map[string]int{}, ByCode: map[string]int{}}
	seen := map[string]bool{}
	var lock sync.Mutex
	next := make(chan struct{})
	started := time.Now()
	var group sync.WaitGroup
	for range max(o.parallel, 1) {
		group.Go(func() {
			for range next {
				replies, err := call(ctx, client, o, name)
				lock.Lock()
				out.Calls++
				out.ByCode[status.Code(err).String()]++
				if err != nil && !seen[status.Convert(err).Message()] {
					seen[status.Convert(err).Message()] = true
					out.Messages = append(out.Messages, status.Convert(err).Message())
				}
				if err == nil && len(replies) > 0 {
					out.ByPod[replies[0].GetServer().GetPod()]++
					out.ByVersion[replies[0].GetServer().GetVersion()]++
				}
				lock.Unlock()
			}
		})
	}
	for range o.calls {
		next <- struct{}{}
		time.Sleep(o.interval)
	}
	close(next)
	group.Wait()
	out.Seconds = time.Since(started).Seconds()
	return out
}

// warmUp calls until o.servers different servers have answered: round_robin begins while some addresses are still connecting.
func warmUp(ctx context.Context, client pb.GreeterClient, o options, name string) {
	seen := map[string]bool{}
	for end := time.Now().Add(10 * time.Second); len(seen) < o.servers && time.Now().Before(end) && ctx.Err() == nil; {
		if replies, err := call(ctx, client, o, name); err == nil && len(replies) > 0 {
			seen[replies[0].GetServer().GetPod()] = true
		}
		time.Sleep(time.Millisecond)
	}
}
