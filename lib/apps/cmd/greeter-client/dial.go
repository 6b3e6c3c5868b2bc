package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// dial makes the client. NewClient connects only when the first call needs it, unlike the guide's Dial with WithBlock.
func dial(o options) (*grpc.ClientConn, error) {
	secure, err := transport(o)
	if err != nil {
		return nil, err
	}
	settings := []grpc.DialOption{
		grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(128 << 20)),
	}
	config := o.config
	if config == "" && o.balancer != "" {
		config = fmt.Sprintf(`{"loadBalancingConfig": [{%q: {}}]}`, o.balancer)
	}
	if config != "" {
		settings = append(settings, grpc.WithDefaultServiceConfig(config))
	}
	target := o.target
	if addresses, static := strings.CutPrefix(o.target, "static:"); static {
		// Go's gRPC resolves dns:///name to all its addresses; a list of addresses needs a resolver of its own.
		list := manual.NewBuilderWithScheme("static")
		state := resolver.State{}
		for address := range strings.SplitSeq(addresses, ",") {
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
		}
		list.InitialState(state)
		settings = append(settings, grpc.WithResolvers(list))
		target = "static:///addresses"
	}
	return grpc.NewClient(target, settings...)
}

func transport(o options) (credentials.TransportCredentials, error) {
	if o.ca == "" {
		return insecure.NewCredentials(), nil
	}
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: o.serverName, MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", o.ca)
	}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config), nil
}
