// Package errors has the SDK's error type, as far as flannel names it.
package errors

// TencentCloudSDKError is an error answered by the cloud's API.
type TencentCloudSDKError struct{ Message string }

func (e *TencentCloudSDKError) Error() string { return e.Message }
