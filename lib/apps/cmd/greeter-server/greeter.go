package main

import (
	"context"
	"io"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "stackbook.dev/apps/internal/pb/helloworld"
	"stackbook.dev/apps/internal/service"
)

const (
	maxWork    = time.Minute
	maxPadding = 64 << 20
	maxCount   = 1000
)

type greeter struct {
	pb.UnimplementedGreeterServer // methods added to the proto later answer UNIMPLEMENTED until they are written here
	id                            service.Identity
}

func (g *greeter) SayHello(ctx context.Context, in *pb.HelloRequest) (*pb.HelloReply, error) {
	if err := check(in); err != nil {
		return nil, err
	}
	if err := work(ctx, in); err != nil {
		return nil, err
	}
	return g.reply(ctx, in, "Hello "+in.GetName()), nil
}

func (g *greeter) LotsOfReplies(in *pb.HelloRequest, out grpc.ServerStreamingServer[pb.HelloReply]) error {
	if err := check(in); err != nil {
		return err
	}
	count := in.GetCount()
	if count == 0 {
		count = 3
	}
	for range count {
		if err := work(out.Context(), in); err != nil {
			return err
		}
		if err := out.Send(g.reply(out.Context(), in, "Hello "+in.GetName())); err != nil {
			return err
		}
	}
	return nil
}

func (g *greeter) LotsOfGreetings(in grpc.ClientStreamingServer[pb.HelloRequest, pb.HelloReply]) error {
	var names []string
	for {
		request, err := in.Recv()
		if err == io.EOF {
			return in.SendAndClose(g.reply(in.Context(), &pb.HelloRequest{}, "Hello "+strings.Join(names, ", ")))
		}
		if err != nil {
			return err
		}
		if err := check(request); err != nil {
			return err
		}
		names = append(names, request.GetName())
	}
}

func (g *greeter) BidiHello(both grpc.BidiStreamingServer[pb.HelloRequest, pb.HelloReply]) error {
	for {
		request, err := both.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := check(request); err != nil {
			return err
		}
		if err := work(both.Context(), request); err != nil {
			return err
		}
		if err := both.Send(g.reply(both.Context(), request, "Hello "+request.GetName())); err != nil {
			return err
		}
	}
}

func (g *greeter) reply(ctx context.Context, in *pb.HelloRequest, text string) *pb.HelloReply {
	out := &pb.HelloReply{
		Message: text,
		Server:  &pb.Server{Pod: g.id.Pod, Version: g.id.Version, Language: "Go"},
		Padding: make([]byte, in.GetPadding()),
	}
	if deadline, ok := ctx.Deadline(); ok {
		out.TimeLeft = durationpb.New(time.Until(deadline))
	}
	return out
}

// check refuses what no server should serve, and says in the details which field is to blame.
func check(in *pb.HelloRequest) error {
	var bad []*errdetails.BadRequest_FieldViolation
	blame := func(field, text string) {
		bad = append(bad, &errdetails.BadRequest_FieldViolation{Field: field, Description: text})
	}
	if in.GetName() == "" {
		blame("name", "must not be empty")
	}
	if in.GetWork().AsDuration() < 0 || in.GetWork().AsDuration() > maxWork {
		blame("work", "must be between 0 and 60 s")
	}
	if in.GetPadding() > maxPadding {
		blame("padding", "must be at most 64 MiB")
	}
	if in.GetCount() > maxCount {
		blame("count", "must be at most 1000")
	}
	if bad == nil {
		return nil
	}
	refused, err := status.New(codes.InvalidArgument, "the request cannot be served").
		WithDetails(&errdetails.BadRequest{FieldViolations: bad})
	if err != nil {
		return err
	}
	return refused.Err()
}

// work passes the time that the request asks for, and stops at once when nobody waits any longer.
func work(ctx context.Context, in *pb.HelloRequest) error {
	span := in.GetWork().AsDuration()
	if span == 0 {
		return nil
	}
	timer := time.NewTimer(span)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}
