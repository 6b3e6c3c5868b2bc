// Package v20170312 has the types of Tencent's VPC API that flannel names. Every call fails: this backend is not built in.
package v20170312

import "errors"

var errNotBuilt = errors.New("flannel's tencent-vpc backend is not built into this lab; choose vxlan, host-gw or udp")

// Client is the API client.
type Client struct{}

// NewClientWithSecretId returns a client whose calls fail, and flannel reports why.
func NewClientWithSecretId(id, key, region string) (*Client, error) { return &Client{}, nil }

// Filter narrows a listing.
type Filter struct {
	Name   *string
	Values []*string
}

// Route is one row of a route table.
type Route struct {
	RouteId              *uint64
	DestinationCidrBlock *string
	GatewayType          *string
	RouteType            *string
	GatewayId            *string
	Enabled              *bool
}

// RouteTable is a named set of routes.
type RouteTable struct {
	RouteTableId *string
	RouteSet     []*Route
}

// DescribeRouteTablesRequest asks for route tables.
type DescribeRouteTablesRequest struct{ Filters []*Filter }

// NewDescribeRouteTablesRequest returns an empty request.
func NewDescribeRouteTablesRequest() *DescribeRouteTablesRequest {
	return &DescribeRouteTablesRequest{}
}

// DescribeRouteTablesResponse answers DescribeRouteTables.
type DescribeRouteTablesResponse struct {
	Response *struct{ RouteTableSet []*RouteTable }
}

// DescribeRouteTables fails: see the package comment.
func (c *Client) DescribeRouteTables(*DescribeRouteTablesRequest) (*DescribeRouteTablesResponse, error) {
	return nil, errNotBuilt
}

// DeleteRoutesRequest asks for routes to be deleted.
type DeleteRoutesRequest struct {
	RouteTableId *string
	Routes       []*Route
}

// NewDeleteRoutesRequest returns an empty request.
func NewDeleteRoutesRequest() *DeleteRoutesRequest { return &DeleteRoutesRequest{} }

// DeleteRoutes fails: see the package comment.
func (c *Client) DeleteRoutes(*DeleteRoutesRequest) (*struct{}, error) { return nil, errNotBuilt }

// CreateRoutesRequest asks for routes to be made.
type CreateRoutesRequest struct {
	RouteTableId *string
	Routes       []*Route
}

// NewCreateRoutesRequest returns an empty request.
func NewCreateRoutesRequest() *CreateRoutesRequest { return &CreateRoutesRequest{} }

// CreateRoutes fails: see the package comment.
func (c *Client) CreateRoutes(*CreateRoutesRequest) (*struct{}, error) { return nil, errNotBuilt }
