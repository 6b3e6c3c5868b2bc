package main

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "stackbook.dev/apps/internal/pb/helloworld"
)

type maker func(context.Context, pb.GreeterClient, options, string, ...grpc.CallOption) ([]*pb.HelloReply, error)

var kinds = map[string]maker{"unary": unary, "server": serverStream, "client": clientStream, "bidi": bidi}

func request(o options, name string) *pb.HelloRequest {
	in := &pb.HelloRequest{Name: name, Padding: uint32(o.padding)}
	if o.work > 0 {
		in.Work = durationpb.New(o.work)
	}
	return in
}

func unary(ctx context.Context, c pb.GreeterClient, o options, name string, set ...grpc.CallOption) ([]*pb.HelloReply, error) {
	reply, err := c.SayHello(ctx, request(o, name), set...)
	if err != nil {
		return nil, err
	}
	return []*pb.HelloReply{reply}, nil
}

func serverStream(ctx context.Context, c pb.GreeterClient, o options, name string, set ...grpc.CallOption) ([]*pb.HelloReply, error) {
	in := request(o, name)
	in.Count = uint32(o.count)
	stream, err := c.LotsOfReplies(ctx, in, set...)
	if err != nil {
		return nil, err
	}
	return receive(stream.Recv)
}

func clientStream(ctx context.Context, c pb.GreeterClient, o options, name string, set ...grpc.CallOption) ([]*pb.HelloReply, error) {
	stream, err := c.LotsOfGreetings(ctx, set...)
	if err != nil {
		return nil, err
	}
	for i := range o.count {
		if err := stream.Send(request(o, fmt.Sprintf("%s %d", name, i+1))); err != nil {
			break // the server's own error comes with the reply
		}
	}
	reply, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	return []*pb.HelloReply{reply}, nil
}

func bidi(ctx context.Context, c pb.GreeterClient, o options, name string, set ...grpc.CallOption) ([]*pb.HelloReply, error) {
	stream, err := c.BidiHello(ctx, set...)
	if err != nil {
		return nil, err
	}
	go func() {
		defer func() { _ = stream.CloseSend() }()
		for i := range o.count {
			if stream.Send(request(o, fmt.Sprintf("%s %d", name, i+1))) != nil {
				return
			}
		}
	}()
	return receive(stream.Recv)
}

func receive(next func() (*pb.HelloReply, error)) ([]*pb.HelloReply, error) {
	var replies []*pb.HelloReply
	for {
		reply, err := next()
		if err == io.EOF {
			return replies, nil
		}
		if err != nil {
			return replies, err
		}
		replies = append(replies, reply)
	}
}
