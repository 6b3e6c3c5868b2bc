// Package common stands in for the Tencent Cloud SDK, which the module proxies the lab builds from do not always carry.
//
// flannel compiles its "tencent-vpc" backend unconditionally. The lab never selects it: with these types the other
// backends build, and selecting this one fails with a clear message (see the vpc package).
package common

// StringPtr returns a pointer to s.
func StringPtr(s string) *string { return &s }

// StringPtrs returns pointers to the values.
func StringPtrs(values []string) []*string {
	out := make([]*string, len(values))
	for i := range values {
		out[i] = &values[i]
	}
	return out
}

// BoolPtr returns a pointer to b.
func BoolPtr(b bool) *bool { return &b }
