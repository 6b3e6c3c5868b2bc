package api

import (
	_ "embed"
	"io/fs"
	"net/http"

	"github.com/gin-gonic/gin"
	swaggerFiles "github.com/swaggo/files/v2"
)

//go:embed openapi.yaml
var description []byte

// page shows the description with Swagger UI, whose files are those of its own distribution.
const page = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Bookshop</title><link rel="stylesheet" href="swagger-ui.css"></head>
<body><div id="page"></div>
<script src="swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "../openapi.yaml", dom_id: "#page"})</script>
</body></html>
`

var assets = []string{"swagger-ui.css", "swagger-ui-bundle.js"}

func documents(routes *gin.Engine) {
	routes.GET("/openapi.yaml", func(c *gin.Context) { c.Data(http.StatusOK, "application/yaml", description) })
	routes.GET("/docs/", func(c *gin.Context) { c.Data(http.StatusOK, "text/html; charset=utf-8", []byte(page)) })
	for _, name := range assets {
		routes.GET("/docs/"+name, func(c *gin.Context) {
			if _, err := fs.Stat(swaggerFiles.FS, name); err != nil {
				c.Status(http.StatusNotFound)
				return
			}
			c.FileFromFS(name, http.FS(swaggerFiles.FS))
		})
	}
}
