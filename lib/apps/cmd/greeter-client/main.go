// Command greeter-client calls the Greeter and says what it saw.
//
//	greeter-client [flags] [NAME]     one call, printed as the guide's client prints it
//	greeter-client -calls 200 -json   many calls, counted by server, version and status
//	greeter-client -bench REST-URL    throughput and latency of gRPC and REST, in turns
//	greeter-client -idle              waits, so that a pod can be entered to run the above
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "stackbook.dev/apps/internal/pb/helloworld"
)

type options struct {
	target, kind, balancer, config   string
	ca, serverName, cert, key        string
	headers                          headerFlag
	timeout, interval, work, benchOf time.Duration
	count, calls, parallel, padding  int
	servers                          int
	json, idle, wait                 bool
	bench                            string
}

// headerFlag collects -header name=value.
type headerFlag struct{ metadata.MD }

func (h *headerFlag) String() string { return fmt.Sprint(h.MD) }

func (h *headerFlag) Set(text string) error {
	name, value, found := strings.Cut(text, "=")
	if !found || name == "" {
		return fmt.Errorf("write it as name=value")
	}
	if h.MD == nil {
		h.MD = metadata.MD{}
	}
	h.Append(name, value)
	return nil
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("greeter-client: ")
	var o options
	flag.StringVar(&o.target, "target", "localhost:50051", "the server; dns:///NAME:PORT resolves to all its addresses, static:A:PORT,B:PORT names them")
	flag.StringVar(&o.kind, "kind", "unary", "unary, server, client or bidi")
	flag.StringVar(&o.balancer, "balancer", "", "round_robin or pick_first (gRPC's default)")
	flag.StringVar(&o.config, "service-config", "", "gRPC service config in JSON, for retries; -balancer is ignored then")
	flag.StringVar(&o.ca, "tls-ca", "", "use TLS and trust this authority")
	flag.StringVar(&o.serverName, "tls-name", "", "the name that the server's certificate must have")
	flag.StringVar(&o.cert, "tls-cert", "", "own certificate, for mutual TLS")
	flag.StringVar(&o.key, "tls-key", "", "its private key")
	flag.Var(&o.headers, "header", "metadata as name=value; may be repeated")
	flag.DurationVar(&o.timeout, "timeout", time.Second, "deadline of each call; 0 for none")
	flag.DurationVar(&o.interval, "interval", 0, "pause between calls")
	flag.DurationVar(&o.work, "work", 0, "how long the server is to work before it replies")
	flag.IntVar(&o.count, "count", 3, "messages of a stream")
	flag.IntVar(&o.calls, "calls", 1, "how many calls")
	flag.IntVar(&o.parallel, "parallel", 1, "how many at once")
	flag.IntVar(&o.servers, "servers", 0, "call, without counting it, until so many servers have answered, for 10 s at most")
	flag.IntVar(&o.padding, "padding", 0, "bytes to add to each reply")
	flag.BoolVar(&o.json, "json", false, "print a summary in JSON")
	flag.BoolVar(&o.wait, "wait-for-ready", false, "wait for the server instead of failing when it cannot be reached")
	flag.BoolVar(&o.idle, "idle", false, "wait for SIGTERM")
	flag.StringVar(&o.bench, "bench", "", "compare with the REST server at this URL")
	flag.DurationVar(&o.benchOf, "bench-time", time.Second, "length of each measurement")
	flag.Parse()
	name := "world"
	if flag.NArg() > 0 {
		name = flag.Arg(0)
	}
	if err := run(o, name); err != nil {
		log.Fatal(err)
	}
}

func run(o options, name string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if o.idle {
		<-ctx.Done()
		return nil
	}
	conn, err := dial(o)
	if err != nil {
		return err
	}
	defer conn.Close()
	if o.bench != "" {
		return bench(ctx, o, conn)
	}
	ctx = metadata.NewOutgoingContext(ctx, o.headers.MD)
	client := pb.NewGreeterClient(conn)
	if !o.json && o.calls == 1 {
		replies, err := call(ctx, client, o, name)
		for _, reply := range replies {
			fmt.Println("Greeting:", reply.GetMessage())
		}
		return err
	}
	warmUp(ctx, client, o, name)
	return json.NewEncoder(os.Stdout).Encode(many(ctx, client, o, name))
}

// call makes one call of the kind asked for and returns its replies.
func call(ctx context.Context, client pb.GreeterClient, o options, name string) ([]*pb.HelloReply, error) {
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	make, known := kinds[o.kind]
	if !known {
		return nil, fmt.Errorf("-kind: %q is none of unary, server, client, bidi", o.kind)
	}
	return make(ctx, client, o, name, grpc.WaitForReady(o.wait))
}
