package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "stackbook.dev/apps/internal/pb/helloworld"
	"stackbook.dev/apps/internal/service"
)

var id = service.Identity{App: "greeter", Version: "v2", Pod: "pod-1"}

// start serves the Greeter in memory and returns its client, its log, and the parts that drain needs.
func start(t *testing.T) (pb.GreeterClient, *grpc.ClientConn, *bytes.Buffer, *grpc.Server, *health.Server) {
	t.Helper()
	var log bytes.Buffer
	calls := &observer{id: id, log: slog.New(slog.NewJSONHandler(&log, nil))}
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(calls.unary), grpc.ChainStreamInterceptor(calls.stream))
	state := health.NewServer()
	pb.RegisterGreeterServer(server, &greeter{id: id})
	healthpb.RegisterHealthServer(server, state)
	listener := bufconn.Listen(1 << 20)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pb.NewGreeterClient(conn), conn, &log, server, state
}

func TestSayHelloNamesItsServerAndTheTimeLeft(t *testing.T) {
	client, _, _, _, _ := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var header metadata.MD
	reply, err := client.SayHello(ctx, &pb.HelloRequest{Name: "world", Padding: 10}, grpc.Header(&header))
	if err != nil {
		t.Fatal(err)
	}
	if reply.GetMessage() != "Hello world" || reply.GetServer().GetLanguage() != "Go" || len(reply.GetPadding()) != 10 {
		t.Errorf("%v", reply)
	}
	if left := reply.GetTimeLeft().AsDuration(); left <= 4*time.Second || left > 5*time.Second {
		t.Errorf("time left: %v", left)
	}
	if got := header.Get("x-served-by"); len(got) != 1 || got[0] != "greeter/v2 pod-1" {
		t.Errorf("x-served-by: %v", got)
	}
}

func TestTheFourKinds(t *testing.T) {
	client, _, log, _, _ := start(t)
	ctx := t.Context()
	replies, err := client.LotsOfReplies(ctx, &pb.HelloRequest{Name: "a", Count: 4})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for ; ; seen++ {
		if _, err := replies.Recv(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if seen != 4 {
		t.Errorf("%d replies", seen)
	}
	greetings, err := client.LotsOfGreetings(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		_ = greetings.Send(&pb.HelloRequest{Name: name})
	}
	if reply, err := greetings.CloseAndRecv(); err != nil || reply.GetMessage() != "Hello a, b" {
		t.Error(reply, err)
	}
	both, err := client.BidiHello(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		_ = both.Send(&pb.HelloRequest{Name: name})
		if reply, err := both.Recv(); err != nil || reply.GetMessage() != "Hello "+name {
			t.Error(reply, err)
		}
	}
	_ = both.CloseSend()
	if _, err := both.Recv(); err != io.EOF {
		t.Error(err)
	}
	for _, method := range []string{"LotsOfReplies", "LotsOfGreetings", "BidiHello"} {
		if !strings.Contains(log.String(), `"method":"/helloworld.Greeter/`+method+`","code":"OK"`) {
			t.Errorf("no line for %s in %s", method, log)
		}
	}
}

func TestABadRequestSaysWhichFields(t *testing.T) {
	client, _, _, _, _ := start(t)
	_, err := client.SayHello(t.Context(), &pb.HelloRequest{Work: durationpb.New(time.Hour)})
	refused := status.Convert(err)
	if refused.Code() != codes.InvalidArgument || len(refused.Details()) != 1 {
		t.Fatal(err)
	}
	var fields []string
	for _, violation := range refused.Details()[0].(*errdetails.BadRequest).GetFieldViolations() {
		fields = append(fields, violation.GetField())
	}
	if strings.Join(fields, ",") != "name,work" {
		t.Error(fields)
	}
}

func TestWorkEndsWithTheDeadline(t *testing.T) {
	client, _, _, _, _ := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	started := time.Now()
	_, err := client.SayHello(ctx, &pb.HelloRequest{Name: "x", Work: durationpb.New(30 * time.Second)})
	if status.Code(err) != codes.DeadlineExceeded || time.Since(started) > 2*time.Second {
		t.Error(err, time.Since(started))
	}
}

func TestFailuresOnRequest(t *testing.T) {
	client, _, _, _, _ := start(t)
	call := func(pairs ...string) codes.Code {
		_, err := client.SayHello(metadata.AppendToOutgoingContext(t.Context(), pairs...), &pb.HelloRequest{Name: "x"})
		return status.Code(err)
	}
	for _, c := range []struct {
		pairs []string
		want  codes.Code
	}{
		{[]string{"fail-with", "UNAVAILABLE"}, codes.Unavailable},
		{[]string{"fail-with", "not_found"}, codes.NotFound},
		{[]string{"fail-with", "nonsense"}, codes.InvalidArgument},
		{[]string{"fail-with", "UNAVAILABLE", "fail-attempts", "0"}, codes.OK},
		{nil, codes.OK},
	} {
		if got := call(c.pairs...); got != c.want {
			t.Errorf("%v: %v", c.pairs, got)
		}
	}
}

func TestDrainSaysNotServingAndLetsCallsEnd(t *testing.T) {
	t.Setenv("DRAIN_SECONDS", "0.1")
	client, conn, _, server, state := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	finished := make(chan struct{})
	go func() { drain(ctx, server, state, slog.New(slog.DiscardHandler)); close(finished) }()
	running := make(chan error, 1)
	go func() {
		_, err := client.SayHello(t.Context(), &pb.HelloRequest{Name: "x", Work: durationpb.New(300 * time.Millisecond)})
		running <- err
	}()
	time.Sleep(50 * time.Millisecond) // the call has begun
	cancel()
	answer := &healthpb.HealthCheckResponse{}
	for deadline := time.Now().Add(time.Second); answer.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING; {
		var err error
		if answer, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || time.Now().After(deadline) {
			t.Fatal(answer, err)
		}
	}
	if _, err := client.SayHello(t.Context(), &pb.HelloRequest{Name: "new"}); err != nil {
		t.Error("a new call while draining:", err)
	}
	if err := <-running; err != nil {
		t.Error("the running call was cut off:", err)
	}
	<-finished
}

func TestRESTTwin(t *testing.T) {
	w := httptest.NewRecorder()
	rest(&greeter{id: id}).ServeHTTP(w, httptest.NewRequest("POST", "/v1/hello", strings.NewReader(`{"name":"x","padding":3}`)))
	var got restReply
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Message != "Hello x" || len(got.Padding) != 3 || got.Pod != "pod-1" {
		t.Error(w.Body, err)
	}
	for _, body := range []string{`{"name":""}`, `{`} {
		w = httptest.NewRecorder()
		rest(&greeter{id: id}).ServeHTTP(w, httptest.NewRequest("POST", "/v1/hello", strings.NewReader(body)))
		if w.Code != 400 {
			t.Errorf("%s: %d", body, w.Code)
		}
	}
}
