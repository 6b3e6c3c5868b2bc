package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "stackbook.dev/apps/internal/pb/helloworld"
)

type fake struct {
	pb.UnimplementedGreeterServer
	pod string
}

func (f fake) SayHello(_ context.Context, in *pb.HelloRequest) (*pb.HelloReply, error) {
	if in.GetName() == "bad" {
		return nil, status.Error(codes.NotFound, "no such name")
	}
	return &pb.HelloReply{Message: "Hello " + in.GetName(), Server: &pb.Server{Pod: f.pod, Version: "v1"}}, nil
}

func serve(t *testing.T, pod string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterGreeterServer(server, fake{pod: pod})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func client(t *testing.T, o options) pb.GreeterClient {
	t.Helper()
	conn, err := dial(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewGreeterClient(conn)
}

func TestManyCountsPodsAndCodes(t *testing.T) {
	o := options{target: serve(t, "a"), kind: "unary", timeout: time.Second, calls: 20, parallel: 4}
	got := many(t.Context(), client(t, o), o, "x")
	if got.Calls != 20 || got.ByPod["a"] != 20 || got.ByVersion["v1"] != 20 || got.ByCode["OK"] != 20 || got.Messages != nil {
		t.Errorf("%+v", got)
	}
	got = many(t.Context(), client(t, o), o, "bad")
	if got.ByCode["NotFound"] != 20 || strings.Join(got.Messages, "|") != "no such name" {
		t.Errorf("%+v", got)
	}
}

func TestRoundRobinSpreadsOverAddressesAndPickFirstDoesNot(t *testing.T) {
	target := "static:" + serve(t, "a") + "," + serve(t, "b")
	for balancer, pods := range map[string]int{"round_robin": 2, "pick_first": 1} {
		o := options{target: target, balancer: balancer, kind: "unary", timeout: time.Second, calls: 40, parallel: 4, wait: true, servers: pods}
		c := client(t, o)
		warmUp(t.Context(), c, o, "x")
		if got := many(t.Context(), c, o, "x"); len(got.ByPod) != pods {
			t.Errorf("%s: %v", balancer, got.ByPod)
		}
	}
}

func TestUnknownKind(t *testing.T) {
	if _, err := call(t.Context(), nil, options{kind: "both"}, "x"); err == nil || !strings.Contains(err.Error(), "none of") {
		t.Error(err)
	}
}

func TestHeaderFlag(t *testing.T) {
	var h headerFlag
	if h.Set("end-user=jason") != nil || h.Set("end-user=mary") != nil || len(h.Get("end-user")) != 2 {
		t.Error(h)
	}
	if h.Set("nonsense") == nil {
		t.Error("no = in it")
	}
}

func TestBenchMeasuresBoth(t *testing.T) {
	rest := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"message":"Hello world","padding":"AAAA"}`))
	}))
	defer rest.Close()
	o := options{target: serve(t, "a"), bench: rest.URL, benchOf: 20 * time.Millisecond, parallel: 2}
	conn, err := dial(o)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := bench(t.Context(), o, conn); err != nil {
		t.Fatal(err)
	}
	o.bench = rest.URL + "/nowhere"
	rest.Config.Handler = http.NotFoundHandler()
	if err := bench(t.Context(), o, conn); err == nil {
		t.Error("a failing server must fail the measurement")
	}
}

func TestReportQuantiles(t *testing.T) {
	var times []time.Duration
	for i := range 1000 {
		times = append(times, time.Duration(1000-i)*time.Millisecond)
	}
	got := report("x", 0, 1, 10, times)
	if got.PerSecond != 100 || got.Latency["p50"] != 501 || got.Latency["p99"] != 991 {
		t.Errorf("%+v", got)
	}
}
