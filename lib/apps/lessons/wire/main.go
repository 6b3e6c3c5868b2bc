// Command wire is Go's side of the chapter on protobuf: it reads what Python wrote and writes what Python reads.
//
//	wire encode MESSAGE   JSON on stdin, bytes on stdout (deterministic)
//	wire decode MESSAGE   bytes on stdin, JSON on stdout; status 3 and the error on stderr when they are malformed
//	wire pics             the guide's Go fragment: bytes on stdout
//	wire bench FILE       size and speed, from a file of lessons.v1.AccessLogs, as JSON on stdout
package main

import (
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "stackbook.dev/apps/internal/pb/lessonsv1"
	"stackbook.dev/apps/internal/pb/protoc"
)

const malformed = 3

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "wire:", err)
		if _, bad := err.(malformedError); bad {
			os.Exit(malformed)
		}
		os.Exit(1)
	}
}

type malformedError struct{ error }

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "encode":
		return encode(args[1])
	case len(args) == 2 && args[0] == "decode":
		return decode(args[1])
	case len(args) == 1 && args[0] == "pics":
		return write(pics([]picture{
			{ID: 1, Location: place{"loooooocation"}, buffer: []byte("daaaaaaaaaaaaaaaaata")},
			{},
		}))
	case len(args) == 2 && args[0] == "bench":
		return bench(args[1])
	}
	return fmt.Errorf("usage: wire encode MESSAGE | decode MESSAGE | pics | bench FILE")
}

type place struct{ Name string }

type picture struct {
	ID       int
	Location place
	buffer   []byte
}

// pics is the guide's fragment with what it leaves out around it.
func pics(pictures []picture) *protoc.Pics {
	protocResp := &protoc.Pics{}
	for _, pic := range pictures {
		buffer := pic.buffer
		protocResp.Pic = append(protocResp.Pic, &protoc.Pics_Picture{
			Id: int32(pic.ID), Location: pic.Location.Name, PicData: buffer})
	}
	return protocResp
}

func message(name string) (proto.Message, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, err
	}
	return kind.New().Interface(), nil
}

func encode(name string) error {
	m, err := message(name)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if err := protojson.Unmarshal(text, m); err != nil {
		return malformedError{err}
	}
	return write(m)
}

func write(m proto.Message) error {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return malformedError{err}
	}
	_, err = os.Stdout.Write(data)
	return err
}

func decode(name string) error {
	m, err := message(name)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(data, m); err != nil {
		return malformedError{err}
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(text, '\n'))
	return err
}
