package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const patience = 20 * time.Second // for the beginning of an answer

type client struct {
	server, token string
	http          *http.Client
}

// newClient trusts only the given CA. It reads the token for every request, because the kubelet renews it.
func newClient(server, ca, token string) (*client, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", ca)
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, ResponseHeaderTimeout: patience, ForceAttemptHTTP2: true,
	}
	return &client{server: server, token: token, http: &http.Client{Transport: transport}}, nil
}

func (c *client) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	token, err := os.ReadFile(c.token)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		said := struct{ Message string }{}
		_ = json.NewDecoder(io.LimitReader(answer.Body, 4096)).Decode(&said)
		return nil, fmt.Errorf("the API server answers %s: %s", answer.Status, said.Message)
	}
	return answer.Body, nil
}

// container is one that has a log: it runs, or has ended.
type container struct{ namespace, pod, uid, name string }

func (c container) String() string { return c.namespace + "/" + c.pod + "/" + c.name }

type pods struct {
	Items []struct {
		Metadata struct{ Name, Namespace, UID string }
		Status   struct{ InitContainerStatuses, ContainerStatuses []status }
	}
}

type status struct {
	Name             string
	State, LastState struct{ Running, Terminated *struct{} }
}

// containers are those of a namespace that have a log.
func (c *client) containers(ctx context.Context, namespace string) ([]container, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := c.get(ctx, "/api/v1/namespaces/"+namespace+"/pods", url.Values{"resourceVersion": {"0"}})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var list pods
	if err := json.NewDecoder(body).Decode(&list); err != nil {
		return nil, err
	}
	found := []container{}
	for _, pod := range list.Items {
		for _, one := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
			if one.State.Running != nil || one.State.Terminated != nil || one.LastState.Terminated != nil {
				found = append(found, container{pod.Metadata.Namespace, pod.Metadata.Name, pod.Metadata.UID, one.Name})
			}
		}
	}
	return found, nil
}

// log is a container's log from a time on, with the time before each line, until the container ends.
func (c *client) log(ctx context.Context, of container, since string) (io.ReadCloser, error) {
	query := url.Values{"container": {of.name}, "follow": {"true"}, "timestamps": {"true"}}
	if since != "" {
		query.Set("sinceTime", since)
	}
	return c.get(ctx, "/api/v1/namespaces/"+of.namespace+"/pods/"+of.pod+"/log", query)
}
